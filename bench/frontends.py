"""What do front ends gain, and how many images can one event loop hand on?

    python -m bench.frontends [--workers 2] [--frontends 2] [--rounds 5] [--seconds 4]

The same workers behind one front end and behind several, in turns, and one front end with a worker that answers at
once. Load comes from processes of their own. On few cores generators, front ends and workers share them: what several
front ends gain shows only where one event loop is too slow for the workers that the cores can run.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from tqdm import tqdm

from bench.chaos.service_process import ServiceProcess
from bench.images import probe_jpegs
from bench.load import closed_loop
from bench.report import print_result, table
from bench.timing import bracketed

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORTS = (8460, 8461)
_WARMUP_S, _TIMEOUT_S, _START_S = 0.5, 10.0, 300.0
# Where generators and workers share the cores, one more process must not cost more than this.
_LEAST_RATIO = 0.95


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if several front ends lose little against one."""
    arguments = _arguments(argv)
    files = probe_jpegs(arguments.model)
    with (
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as running,
        ProcessPoolExecutor(arguments.generators, mp_context=get_context("spawn")) as generators,
    ):
        workers, count = str(arguments.workers), arguments.frontends
        load = _Load(generators, arguments.generators, arguments.clients, files, arguments.seconds)
        one, several = (
            running.enter_context(_service(arguments.model, port, Path(folder), ["--workers", workers, *flags]))
            for port, flags in zip(_PORTS, (["--frontends", "1"], ["--frontends", str(count)]), strict=True)
        )
        rounds = tqdm([lambda: load.images_per_s(several)] * arguments.rounds, desc="rounds")
        rates = [*bracketed(lambda: load.images_per_s(one), rounds)]
        url = running.enter_context(_answering(arguments.model))
        limits = [load.images_per_s(url) for _ in tqdm(range(arguments.rounds), desc="one event loop")]
    ratios = [of_several / of_one for of_one, of_several in rates]
    print(
        table(
            ["front ends", "images/s"],
            [
                [f"1 with {workers} workers", f"{median(each for each, _ in rates):.0f}"],
                [f"{count} with {workers} workers together", f"{median(each for _, each in rates):.0f}"],
                ["1 without inference", f"{median(limits):.0f}"],
            ],
        )
    )
    ratio = median(ratios)
    print(f"{count} front ends, of one: {ratio:.3f}")
    told = {"frontends": count, "workers": arguments.workers, "ratio": ratio, "ratios": ratios, "images_per_s": rates}
    limit = {"event_loop_images_per_s": median(limits), "event_loop_rounds": limits}
    result = {"benchmark": "frontends", "model": arguments.model.parent.name, "clients": arguments.clients}
    return print_result(ratio >= _LEAST_RATIO, result | told | limit)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.frontends", description="What do front ends gain?")
    parser.add_argument("--model", type=Path, default=_SHIPPED, help="folder of an artifact (default: the shipped one)")
    parser.add_argument("--workers", type=int, default=2, help="of all front ends (default: %(default)s)")
    parser.add_argument("--frontends", type=int, default=2, help="to compare with one (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="connections of all generators (default: %(default)s)")
    parser.add_argument("--generators", type=int, default=2, help="processes that send (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement (default: %(default)g)")
    return parser.parse_args(argv)


class _Load:
    """Load of a number of processes together."""

    def __init__(self, generators: Executor, count: int, clients: int, files: Sequence[bytes], seconds: float) -> None:
        self._generators, self._count, self._clients = generators, count, clients
        self._files, self._seconds = files, seconds

    def images_per_s(self, url: str) -> float:
        """Images a second that a service answers to all of them."""
        headers = {"Content-Type": "image/jpeg"}
        load = (f"{url}/classify?graph=none", self._files, headers, self._clients // self._count)
        sent = [
            self._generators.submit(closed_loop, *load, self._seconds, _WARMUP_S, _TIMEOUT_S)
            for _ in range(self._count)
        ]
        return sum(each.result().images_per_s for each in sent)


@contextmanager
def _service(model: Path, port: int, folder: Path, flags: Sequence[str]) -> Iterator[str]:
    """The service with these flags; gives its URL."""
    service = ServiceProcess(model, port, folder / "cache", folder / f"log-{port}", flags)
    try:
        service.wait_until_it_listens(_START_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        if service.exit_status(30) is None:
            service.kill()


@contextmanager
def _answering(model: Path) -> Iterator[str]:
    """One front end without inference; gives its URL."""
    command = [sys.executable, "-m", "bench.answering_server", str(model)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
