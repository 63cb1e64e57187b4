"""What serving adds: images a second over HTTP against the same work in one process, and milliseconds for one client.

    python -m bench.overhead

Both sides decode the same JPEG files and run the same artifact on the same number of threads, in turns. The load
generator takes its time from the same cores; the table tells how much.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from artifact.manifest import read_manifest
from bench.images import probe_jpegs
from bench.in_process import InProcess
from bench.load import closed_loop
from bench.networks import build_artifact
from bench.peer_servers import SERVICE, Server, running
from bench.report import print_result, table
from service.engine.runtime import open_runtime
from service.engine.tuning import usable_cores

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT = 8321
_CLIENTS = 16
_SECONDS, _WARMUP_S, _TIMEOUT_S = 3.0, 0.5, 10.0
_LEAST_SHARE, _MOST_ADDED_MS, _MOST_START_S = 0.9, 1.5, 2.0


@dataclass(frozen=True)
class Overhead:
    """Medians of all rounds for one model.

    Attributes:
        in_process, http: images a second at saturation.
        share: of one in the other, the median of the rounds, with the lowest and the highest.
        in_process_ms, http_ms: one image at a time, one client.
        added_ms: their difference.
        generator_ms: processor time of the load generator for an image.
        start_s: from the start of the program until it is ready.
        resident_mb: memory of the service after all that.
    """

    model: str
    in_process: float
    http: float
    share: float
    share_range: tuple[float, float]
    in_process_ms: float
    http_ms: float
    added_ms: float
    generator_ms: float
    start_s: float
    resident_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if every target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description="What does serving add?")
    parser.add_argument("--model", type=Path, action="append", help="folder of an artifact; may be given several times")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    models = arguments.model or [_SHIPPED, *_random_models(_ROOT / ".bench" / "networks")]
    measured = [measure(model, arguments.rounds) for model in models]
    print(_table(measured))
    missed = [problem for overhead in measured for problem in problems(overhead)]
    for problem in missed:
        print("missed:", problem)
    return print_result(
        not missed, {"benchmark": "overhead", "models": [asdict(one) for one in measured], "missed": missed}
    )


def measure(model: Path, rounds: int) -> Overhead:
    """Time one model in process and over HTTP, in turns."""
    files = probe_jpegs(model)
    in_process = InProcess(open_runtime(model, device="cpu"), files)
    threads = usable_cores()
    figures: list[tuple[float, float, float, float, float]] = []
    started = time.perf_counter()
    with running(SERVICE, model, _PORT) as server:
        start_s = time.perf_counter() - started
        for _ in tqdm(range(rounds), desc=str(model), unit="round", leave=False):
            saturated = _load(server, files, _CLIENTS)
            alone = _load(server, files, 1)
            figures.append(
                (
                    in_process.images_per_s(threads, _SECONDS),
                    saturated[0],
                    in_process.median_ms(_SECONDS / 2),
                    alone[1],
                    saturated[2],
                )
            )
        resident_mb = server.resident_bytes() / 1e6
    columns = np.array(figures)
    shares = columns[:, 1] / columns[:, 0]
    local, http, local_ms, http_ms, generator_ms = np.median(columns, axis=0).tolist()
    return Overhead(
        model=read_manifest(model).name,
        in_process=local,
        http=http,
        share=float(np.median(shares)),
        share_range=(float(shares.min()), float(shares.max())),
        in_process_ms=local_ms,
        http_ms=http_ms,
        added_ms=float(np.median(columns[:, 3] - columns[:, 2])),
        generator_ms=generator_ms,
        start_s=start_s,
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


def _load(server: Server, files: Sequence[bytes], clients: int) -> tuple[float, float, float]:
    """Images a second, median latency in ms, and the generator's processor time for an image in ms."""
    result = closed_loop(server.url, files, server.headers, clients, _SECONDS, _WARMUP_S, _TIMEOUT_S)
    if set(result.counts) != {200}:
        raise RuntimeError(f"not every image was classified: {result.counts}")
    return result.images_per_s, result.percentiles_ms()["p50"] or 0.0, result.cpu_us_per_request / 1000


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
        row("share", lambda one: f"{one.share:.1%} ({one.share_range[0]:.1%} to {one.share_range[1]:.1%})"),
        row("load generator, ms an image", lambda one: f"{one.generator_ms:.3f}"),
        row("one image in process, ms", lambda one: f"{one.in_process_ms:.2f}"),
        row("one client over HTTP, ms", lambda one: f"{one.http_ms:.2f}"),
        row("added, ms", lambda one: f"{one.added_ms:.2f}"),
        row("start to first answer, s", lambda one: f"{one.start_s:.2f}"),
        row("memory, MB", lambda one: f"{one.resident_mb:.0f}"),
    ]
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
