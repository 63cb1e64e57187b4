"""What serving adds: images a second over HTTP against the same work in one process, and milliseconds for one client.

    python -m bench.overhead

Both sides decode the same JPEG files and run the same artifact on the same number of threads, in short windows: every
one over HTTP stands between two in process. The load generator takes its time from the same cores, which lowers the
share that is judged; beside it stands the share of what the cores can do in the time that the generator leaves them:
images a second over HTTP / (in process x (1 - processor time of the generator / (cores x window))).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
from tqdm import tqdm

from artifact.cores import usable_cores
from artifact.manifest import read_manifest
from bench.images import probe_jpegs
from bench.in_process import InProcess
from bench.load import Result, closed_loop
from bench.networks import build_artifact
from bench.peer_servers import SERVICE, Peer, Server, running
from bench.report import print_result, table
from bench.timing import bracketed
from service.engine.runtimes.base import RuntimeName
from service.engine.runtimes.selection import open_runtime
from service.settings import Settings

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT = 8321
_CLIENTS = 16
_WINDOW_S, _WARMUP_S, _TIMEOUT_S = 1.5, 0.5, 10.0
_LEAST_IMAGES = 64  # of a window at saturation, lest one more or less make a difference
_STARTS = 3
_LEAST_SHARE, _MOST_ADDED_MS, _MOST_START_S = 0.9, 1.5, 2.0


@dataclass(frozen=True)
class Saturation:
    """One window at saturation.

    Attributes:
        in_process, http: images a second.
        generator_ms: processor time of the load generator for an image.
        cores: that in process, service and generator have.
    """

    in_process: float
    http: float
    generator_ms: float
    cores: int

    @property
    def share(self) -> float:
        """Of what is done in process, done over HTTP too."""
        return self.http / self.in_process

    @property
    def generator_share(self) -> float:
        """Of the time of all cores, taken by the load generator."""
        return self.generator_ms / 1000 * self.http / self.cores

    @property
    def share_of_rest(self) -> float:
        """Of what the cores can do in the time that the generator leaves them, done over HTTP."""
        return self.share / (1 - self.generator_share)


@dataclass(frozen=True)
class Overhead:
    """Medians of all rounds for one model.

    Attributes:
        in_process, http: images a second at saturation.
        share: of one in the other.
        share_quartiles: the lower and the upper one.
        share_of_rest: the same of what the cores can do in the time that the load generator leaves them.
        share_of_rest_quartiles: the lower and the upper one.
        generator_share: of the time of all cores, taken by the load generator.
        generator_ms: processor time of the load generator for an image.
        in_process_ms, http_ms: one image at a time, one client.
        added_ms: their difference.
        start_s: from the start of the program until its first answer, the median of several starts.
        resident_mb: memory of the service after all that.
    """

    model: str
    in_process: float
    http: float
    share: float
    share_quartiles: tuple[float, float]
    share_of_rest: float
    share_of_rest_quartiles: tuple[float, float]
    generator_share: float
    generator_ms: float
    in_process_ms: float
    http_ms: float
    added_ms: float
    start_s: float
    resident_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if every target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description="What does serving add?")
    parser.add_argument(
        "--model",
        type=Path,
        action="append",
        help="folder of an artifact; may be given several times (default: the shipped one and two random ones)",
    )
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (default: %(default)s)")
    parser.add_argument(
        "--isolation",
        choices=("process", "thread"),
        default=Settings().isolation,
        help="what the service's workers are (default: the service's own, %(default)s)",
    )
    parser.add_argument(
        "--runtime",
        choices=get_args(RuntimeName),
        default=Settings().runtime,
        help="what runs the network on both sides (default: the service's own, %(default)s)",
    )
    arguments = parser.parse_args(argv)
    models = arguments.model or [_SHIPPED, *_random_models(_ROOT / ".bench" / "networks")]
    service = replace(SERVICE, environment={"AIG_ISOLATION": arguments.isolation, "AIG_RUNTIME": arguments.runtime})
    measured = [measure(service, model, arguments.rounds, arguments.runtime) for model in models]
    print(f"workers: {arguments.isolation}, runtime: {arguments.runtime}\n{_table(measured)}")
    missed = [problem for overhead in measured for problem in problems(overhead)]
    for problem in missed:
        print("missed:", problem)
    how = {"isolation": arguments.isolation, "runtime": arguments.runtime}
    result = {**how, "models": [asdict(one) for one in measured], "missed": missed}
    return print_result(not missed, {"benchmark": "overhead", **result})


def measure(service: Peer, model: Path, rounds: int, runtime: RuntimeName) -> Overhead:
    """Time one model in process and over HTTP, in turns."""
    files, cores = probe_jpegs(model), usable_cores()
    in_process = InProcess(open_runtime(model, runtime, "cpu"), files)
    window_s = max(_WINDOW_S, _LEAST_IMAGES / in_process.images_per_s(cores, _WARMUP_S))
    starts_s = [_start_s(service, model) for _ in range(_STARTS)]
    with running(service, model, _PORT) as server:
        everyone = [partial(_load, server, files, _CLIENTS, window_s)] * rounds
        saturated = [
            Saturation(images_per_s, result.images_per_s, result.cpu_us_per_request / 1000, cores)
            for images_per_s, result in bracketed(
                lambda: in_process.images_per_s(cores, window_s), tqdm(everyone, desc=f"{model}", leave=False)
            )
        ]
        one = [partial(_load, server, files, 1, _WINDOW_S)] * rounds
        alone = [
            (in_process_ms, result.percentiles_ms()["p50"] or 0.0)
            for in_process_ms, result in bracketed(
                lambda: in_process.median_ms(_WINDOW_S), tqdm(one, desc=f"{model}, one client", leave=False)
            )
        ]
        resident_mb = server.resident_bytes() / 1e6
    shares = _quartiles([window.share for window in saturated])
    shares_of_rest = _quartiles([window.share_of_rest for window in saturated])
    return Overhead(
        model=read_manifest(model).name,
        in_process=median(window.in_process for window in saturated),
        http=median(window.http for window in saturated),
        share=shares[1],
        share_quartiles=(shares[0], shares[2]),
        share_of_rest=shares_of_rest[1],
        share_of_rest_quartiles=(shares_of_rest[0], shares_of_rest[2]),
        generator_share=median(window.generator_share for window in saturated),
        generator_ms=median(window.generator_ms for window in saturated),
        in_process_ms=median(in_process_ms for in_process_ms, _ in alone),
        http_ms=median(http_ms for _, http_ms in alone),
        added_ms=median(http_ms - in_process_ms for in_process_ms, http_ms in alone),
        start_s=median(starts_s),
        resident_mb=resident_mb,
    )


def problems(overhead: Overhead) -> list[str]:
    """The targets that were missed."""
    missed = []
    if overhead.share < _LEAST_SHARE:
        missed.append(f"{overhead.model}: HTTP reaches {overhead.share:.1%} of the images a second in process")
    if overhead.added_ms > _MOST_ADDED_MS:
        missed.append(f"{overhead.model}: one client waits {overhead.added_ms:.2f} ms longer")
    if overhead.start_s > _MOST_START_S and read_manifest(_SHIPPED).name == overhead.model:
        missed.append(f"{overhead.model}: ready after {overhead.start_s:.1f} s")
    return missed


def _start_s(service: Peer, model: Path) -> float:
    """Seconds until a program that was just started has answered an image."""
    started = time.perf_counter()
    with running(service, model, _PORT):
        return time.perf_counter() - started


def _load(server: Server, files: Sequence[bytes], clients: int, window_s: float) -> Result:
    result = closed_loop(server.url, files, server.headers, clients, window_s, _WARMUP_S, _TIMEOUT_S)
    if set(result.counts) != {200}:
        raise RuntimeError(f"not every image was classified: {result.counts}")
    return result


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def _random_models(folder: Path) -> list[Path]:
    """A deeper network for small images and one for large ones, with about half of their gates open."""
    presets = {"convnet-aig-110-cifar10": 0.45, "convnet-aig-50-imagenet": 0.6}
    return [
        build_artifact(preset, folder / f"{preset}-{share:.0%}-open", open_share=share)
        for preset, share in presets.items()
    ]


def _table(measured: Sequence[Overhead]) -> str:
    head = ("", *(one.model for one in measured))

    def row(name: str, text: Callable[[Overhead], str]) -> tuple[str, ...]:
        return (name, *(text(one) for one in measured))

    rows = [
        row("in process, images/s", lambda one: f"{one.in_process:.0f}"),
        row(f"HTTP, {_CLIENTS} clients, images/s", lambda one: f"{one.http:.0f}"),
        row("share (quartiles)", lambda one: _percent(one.share, one.share_quartiles)),
        row("share of what the generator leaves", lambda one: _percent(one.share_of_rest, one.share_of_rest_quartiles)),
        row("load generator, share of the cores", lambda one: f"{one.generator_share:.1%}"),
        row("load generator, ms an image", lambda one: f"{one.generator_ms:.3f}"),
        row("one image in process, ms", lambda one: f"{one.in_process_ms:.2f}"),
        row("one client over HTTP, ms", lambda one: f"{one.http_ms:.2f}"),
        row("added, ms", lambda one: f"{one.added_ms:.2f}"),
        row("start to first answer, s", lambda one: f"{one.start_s:.2f}"),
        row("memory, MB", lambda one: f"{one.resident_mb:.0f}"),
    ]
    return table(head, rows)


def _percent(share: float, quartiles: tuple[float, float]) -> str:
    return f"{share:.1%} ({quartiles[0]:.1%} to {quartiles[1]:.1%})"


if __name__ == "__main__":
    sys.exit(main())
