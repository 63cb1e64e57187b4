"""What does reading a dataset and writing its answers cost, and is every image there exactly once after a SIGKILL?

    python -m bench.offline [--images 20000] [--rounds 5]
    python -m bench.offline --million [--images 1000000]

Small images lie in tar shards. In turns, on the same engine with the same workers: images from memory, as many at a
time as `classify-dataset` gives it, and `classify-dataset`'s own way from shards to Parquet. The ratio of images a
second is told, and the processor time of an image. With --million the program itself classifies the shards; it is
killed in the middle and goes on, its memory is sampled, and the answers are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import uvloop

from bench.images import probe_jpegs
from bench.offline.rates import compare
from bench.offline.resuming import kill_and_resume
from bench.offline.shards import write_shards
from bench.report import print_result, table

_SHIPPED = Path(__file__).resolve().parents[2] / "model_repository" / "convnet-aig-38-cifar10" / "1"
# Images a second, of the engine's own; memory in the last quarter, of that in the second.
_LEAST, _MOST_GROWTH = 0.95, 1.1


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit status 0 if the target holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.offline", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=_SHIPPED, help="an artifact (default: the shipped one)")
    parser.add_argument("--million", action="store_true", help="kill, resume, and count every image")
    parser.add_argument("--images", type=int, help="how many (default: 20000, with --million 1000000)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where shards and answers go (default: a temporary one)")
    arguments = parser.parse_args(argv)
    images = arguments.images or (1_000_000 if arguments.million else 20_000)
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shards = write_shards(folder / f"shards-{images}", probe_jpegs(arguments.model), images)
        if arguments.million:
            return _tell_resumed(arguments.model, shards, folder / "answers", images)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rates = runner.run(compare(arguments.model, shards, folder, images, arguments.rounds))
    told = [["the engine alone", f"{rates.engine:.0f}"], ["classify-dataset", f"{rates.dataset:.0f}"]]
    print(table(["", "images/s"], told))
    print(f"ratio: {rates.share:.3f} ({', '.join(f'{share:.3f}' for share in rates.shares)})")
    print(f"processor time of an image: {rates.engine_cpu_ms:.3f} and {rates.dataset_cpu_ms:.3f} ms")
    result = {"model": arguments.model.parent.name, "images": images, "share": rates.share, **asdict(rates)}
    return print_result(rates.share >= _LEAST, {"benchmark": "offline", **result})


def _tell_resumed(model: Path, shards: Path, answers: Path, images: int) -> int:
    resumed = kill_and_resume(model, shards, answers, images)
    problems = [*resumed.problems]
    if resumed.growth > _MOST_GROWTH:
        problems.append(f"memory grew to {resumed.growth:.2f} of what it was")
    for problem in problems:
        print("problem:", problem)
    megabytes = [[round(sample / 1e6) for sample in samples] for samples in resumed.memory_bytes]
    most = " and ".join(str(max(samples, default=0)) for samples in megabytes)
    print(f"killed after {resumed.parts_before} parts; memory of all processes at most {most} MB before and after")
    result = {
        "images": images,
        "parts_before": resumed.parts_before,
        "memory_mb": [samples[:: max(1, len(samples) // 20)] for samples in megabytes],
        "growth": resumed.growth,
        "problems": problems,
    }
    return print_result(not problems, {"benchmark": "offline --million", **result})


if __name__ == "__main__":
    sys.exit(main())
