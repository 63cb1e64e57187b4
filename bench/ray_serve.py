"""What does a Ray cluster cost the service, on one machine?

    python -m bench.ray_serve [--rounds 3] [--model FOLDER]

Images a second, and the median time of one that is alone: of the service in a single process with as many workers, and
of the same service deployed on Ray with one and two replicas of the engine. Each replica has one worker. All share the
cores of this machine, so this tells what the way through Ray costs and not what a second machine would bring. Ray is in
an environment of its own, which `make test-ray` sets up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from tqdm import tqdm

from bench.chaos.service_process import ServiceProcess, wait_until
from bench.load import closed_loop
from bench.report import print_result, table

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_BIN = _ROOT / ".venv-ray" / "bin"
_PORT, _CLIENTS, _WARMUP_S, _TIMEOUT_S, _START_S = 8460, 16, 1.0, 10.0, 180.0
_REPLICAS = (1, 2)
_OBJECT_STORE_BYTES = 100 * 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if every request was answered."""
    parser = argparse.ArgumentParser(prog="python -m bench.ray_serve", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=_SHIPPED, help="folder of it (default: the shipped one)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of every measurement (default: %(default)g)")
    arguments = parser.parse_args(argv)
    if not (_BIN / "serve").exists():
        parser.error("Ray is not installed: make test-ray sets it up in .venv-ray")
    # A shell has what runs in the background ignore it, and so would `serve run`, which ends by nothing else.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model, names = arguments.model.resolve(), {1: "1 worker", 2: "2 workers"}
    rates: dict[str, list[float]] = {}
    alone_ms: dict[str, list[float]] = {}
    failed = 0
    for _ in tqdm(range(arguments.rounds), desc="rounds"):
        for count in _REPLICAS:
            for name, serving in ((names[count], _single), (f"Ray, {count} x 1 worker", _on_ray)):
                with tempfile.TemporaryDirectory() as folder, serving(model, count, Path(folder)):
                    rate, latency_ms, lost = _measure(arguments.seconds)
                rates.setdefault(name, []).append(rate)
                alone_ms.setdefault(name, []).append(latency_ms)
                failed += lost
    print(
        table(
            ["served by", "images/s", "one alone, ms"],
            [[name, f"{median(rates[name]):.0f}", f"{median(alone_ms[name]):.1f}"] for name in rates],
        )
    )
    shares = {}
    for count in _REPLICAS:
        pairs = zip(rates[f"Ray, {count} x 1 worker"], rates[names[count]], strict=True)
        shares[count] = median(on_ray / single for on_ray, single in pairs)
        print(f"images/s on Ray with {count}, of a single process: {shares[count]:.3f}")
    told = {"images_per_s": rates, "alone_ms": alone_ms, "of_single": shares, "failed": failed}
    return print_result(not failed, {"benchmark": "ray_serve", "model": model.parent.name, **told})


def _measure(seconds: float) -> tuple[float, float, int]:
    """Images a second with many clients, median milliseconds with one, and how many were not answered."""
    url, headers = f"http://127.0.0.1:{_PORT}/classify?graph=none", {"Content-Type": "image/webp"}
    images = [path.read_bytes() for path in sorted((_ROOT / "service/ui/static/samples").glob("*.webp"))]
    many, one = (
        closed_loop(url, images, headers, clients, seconds, _WARMUP_S, _TIMEOUT_S) for clients in (_CLIENTS, 1)
    )
    failed = sum(int(np.count_nonzero(result.status != 200)) for result in (many, one))
    return many.images_per_s, float(np.median(one.latency_s)) * 1000, failed


@contextmanager
def _single(model: Path, workers: int, folder: Path) -> Iterator[None]:
    """The service in a single process."""
    flags = ["--workers", str(workers)]
    service = ServiceProcess(model, _PORT, _ROOT / ".bench" / "cache", folder / "log", flags)
    try:
        service.wait_until_it_listens(_START_S)
        _wait_until_ready()
        yield
    finally:
        service.terminate()
        if service.exit_status(30) is None:
            service.kill()


@contextmanager
def _on_ray(model: Path, replicas: int, folder: Path) -> Iterator[None]:
    """The service on a Ray cluster of one node, which `serve run` starts and ends."""
    args = {"model": str(model), "workers": 1, "cache": str(_ROOT / ".bench" / "cache")}
    # Ray's CPUs are only numbers, and all the parts share the cores whatever they are.
    small = {"ray_actor_options": {"num_cpus": 0.1}}
    deployments = [
        {"name": "Ingress", "num_replicas": 1, **small},
        {"name": "Engine", "num_replicas": replicas, **small},
    ]
    application = {"name": "aig", "import_path": "deploy.ray:app", "args": args, "deployments": deployments}
    config = folder / "serve.json"  # which is YAML
    config.write_text(json.dumps({"http_options": {"port": _PORT}, "applications": [application]}))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIG_")}
    environment |= {
        "PATH": f"{_BIN}{os.pathsep}{environment['PATH']}",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(_OBJECT_STORE_BYTES),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [str(_BIN / "serve"), "run", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, process_group=0)
    try:
        _wait_until_ready()
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_START_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_ready() -> None:
    def is_ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{_PORT}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    if not wait_until(is_ready, _START_S):
        raise RuntimeError("the service is not ready")


if __name__ == "__main__":
    sys.exit(main())
