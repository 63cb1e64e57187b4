"""Do images that are dear to decode keep others out? An ordinary client alone, and beside eight that send only such.

    python -m bench.dear_images

The eight send the dearest images that are accepted, in turn, each alone or all in a batch. The ordinary client sends
small JPEGs, one after another. Its speed alone is taken before and after each time beside the others.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from PIL import Image
from tqdm import tqdm

from bench.images import probe_jpegs
from bench.load import Result, closed_loop
from bench.load_result import OK
from bench.peer_servers import SERVICE, Server, running
from bench.report import print_result, table
from bench.timing import bracketed

_ROOT = Path(__file__).resolve().parent.parent
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"
_PORT, _CLIENTS, _TIMEOUT_S = 8797, 8, 30.0
_LEAST_ANSWERED, _LEAST_SPEED = 0.9, 0.5
_BOUNDARY = "dear"


@dataclass(frozen=True)
class Beside:
    """What an ordinary client gets beside those that send dear images.

    Attributes:
        dear: how these were sent.
        answered: share of its requests that were answered, of all rounds.
        speed: images a second, of those it gets alone; the median of the rounds.
        p99_ms: its latency, the worst of the rounds.
        dear_per_s: dear requests that were answered, a second; the median of the rounds.
    """

    dear: str
    answered: float
    speed: float
    p99_ms: float
    dear_per_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if both targets hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.dear_images", description="Do dear images keep others out?")
    parser.add_argument("--model", type=Path, default=_SHIPPED, help="folder of an artifact (default: the shipped one)")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each kind (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each window (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with (
        running(SERVICE, arguments.model, _PORT) as server,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as others,
    ):
        files = [file for file in _candidates() if _is_accepted(server, file)]
        batch = b"".join(_part(file) for file in files) + f"--{_BOUNDARY}--\r\n".encode()
        measured = [
            _measure(server, arguments, others, how, path, bodies, kind)
            for how, path, bodies, kind in (
                ("one by one", "/classify", files, "image/png"),
                ("in batches", "/classify/batch", [batch], f"multipart/form-data; boundary={_BOUNDARY}"),
            )
        ]
    head = ["dear images", "answered", "speed of alone", "p99 ms", "dear requests/s"]
    rows = [
        [one.dear, f"{one.answered:.1%}", f"{one.speed:.2f}", f"{one.p99_ms:.0f}", f"{one.dear_per_s:.1f}"]
        for one in measured
    ]
    print(f"{len(files)} dear images, {', '.join(f'{len(file) / 1000:.0f} KB' for file in files)}\n{table(head, rows)}")
    ok = all(one.answered >= _LEAST_ANSWERED and one.speed >= _LEAST_SPEED for one in measured)
    return print_result(ok, {"benchmark": "dear_images", "beside": [asdict(one) for one in measured]})


def _measure(
    server: Server,
    arguments: argparse.Namespace,
    others: ProcessPoolExecutor,
    how: str,
    path: str,
    bodies: list[bytes],
    kind: str,
) -> Beside:
    ordinary, seconds = probe_jpegs(arguments.model), arguments.seconds
    url = server.url.removesuffix("/classify")

    def alone() -> float:
        return closed_loop(server.url, ordinary, server.headers, 1, seconds / 2, 0.5, _TIMEOUT_S).images_per_s

    def beside() -> tuple[Result, Result]:
        load = (url + path, bodies, {"content-type": kind}, _CLIENTS, seconds + 2, 0.0, _TIMEOUT_S)
        dear = others.submit(closed_loop, *load)
        return closed_loop(server.url, ordinary, server.headers, 1, seconds, 2.0, _TIMEOUT_S), dear.result()

    windows = [*bracketed(alone, tqdm([partial(beside)] * arguments.rounds, desc=how, leave=False))]
    results = [result for _, (result, _) in windows]
    counts = [(result.counts.get(OK, 0), sum(result.counts.values())) for result in results]
    return Beside(
        dear=how,
        answered=sum(ok for ok, _ in counts) / max(1, sum(asked for _, asked in counts)),
        speed=median(result.images_per_s / images_per_s for images_per_s, (result, _) in windows),
        p99_ms=max(result.percentiles_ms()["p99"] or float("inf") for result in results),
        dear_per_s=median(dear.images_per_s for _, (_, dear) in windows),
    )


def _candidates() -> list[bytes]:
    """Small files of many pixels, and one whose pixels are gone over many times."""
    files = []
    for kind, side, options in (("PNG", 5000, {}), ("PNG", 3500, {}), ("WEBP", 3500, {"lossless": True})):
        file = io.BytesIO()
        Image.new("RGB", (side, side), (90, 120, 30)).save(file, kind, **options)
        files.append(file.getvalue())
    for scans in (20, 80):
        file = io.BytesIO()
        Image.new("L", (2000, 2000), 77).save(file, "JPEG", progressive=True)
        data = file.getvalue()
        last = data.rindex(b"\xff\xda")
        files.append(data[:-2] + data[last:-2] * scans + data[-2:])
    return files


def _is_accepted(server: Server, file: bytes) -> bool:
    return bool(closed_loop(server.url, [file], {"content-type": "image/png"}, 1, 2.0, 0.0, _TIMEOUT_S).counts.get(OK))


def _part(file: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png'
    return f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode() + file + b"\r\n"


if __name__ == "__main__":
    sys.exit(main())
