"""What lower precision costs and gains: accuracy, decisions and time of the compiled network in fp32, bf16 and int8.

    python -m bench.precisions --data DATA

The images are those held out of training, one at a time on one thread. A precision is worth having where it loses less
than half a point of accuracy and is faster than the one above it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from artifact.manifest import read_manifest
from artifact.preprocessing import Float32Array
from bench.contenders import JUDGED, OURS, compiled_runtimes
from bench.report import print_result, table
from models.hold_out import split
from models.sources import open_examples
from service.engine.runtimes.base import Precision, Runtime
from service.engine.runtimes.int8 import Int8Runtime

_SHIPPED = Path(__file__).resolve().parent.parent / "model_repository" / "convnet-aig-38-cifar10" / "1"
_MOST_LOST = 0.005


@dataclass(frozen=True)
class Answers:
    """What a runtime said of every image.

    Attributes:
        right: (N,) whether the prediction is the class.
        predictions: (N,).
        opened: (N, G) which gates are open.
        macs: mean of what was spent, of what the network without gates spends.
        image_ms: median time of an image.
    """

    right: npt.NDArray[np.bool_]
    predictions: npt.NDArray[np.intp]
    opened: npt.NDArray[np.bool_]
    macs: float
    image_ms: float


@dataclass(frozen=True)
class Precise:
    """A precision beside fp32; all but the times are shares, and the interval is that of the difference, of 95%."""

    runtime: str
    precision: Precision
    accuracy: float
    difference: float
    interval: float
    macs: float
    equal_predictions: float
    equal_gates: float
    other_paths: float
    image_ms: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every precision that this processor has; exit status 0 if each is worth having."""
    parser = argparse.ArgumentParser(prog="python -m bench.precisions", description="What does lower precision cost?")
    parser.add_argument("--data", type=Path, required=True, help="class folders, a tar of them, or CIFAR-10's batches")
    parser.add_argument(
        "--model", type=Path, default=_SHIPPED, help="an artifact with an int8 graph (default: the shipped one)"
    )
    parser.add_argument("--held-out", type=int, default=5000, help="images kept out of training (default: %(default)s)")
    arguments = parser.parse_args(argv)
    manifest, examples = read_manifest(arguments.model), open_examples(arguments.data)
    _, held_out = split(examples, arguments.held_out)
    pixels = np.stack([examples.fitted(int(index), manifest.preprocessing) for index in held_out])
    images, classes = manifest.preprocessing.normalise(pixels), examples.classes[held_out]
    runtimes = compiled_runtimes(arguments.model, manifest)
    runtimes["ONNX Runtime int8"] = Int8Runtime(arguments.model, manifest)
    measured = {name: answers(runtime, images, classes, name) for name, runtime in runtimes.items()}
    rows = [beside(measured[JUDGED], name, runtimes[name].precision, found) for name, found in measured.items()]
    failures = problems([row for row in rows if row.runtime.startswith(OURS)])
    print(_table(rows))
    for failure in failures:
        print(f"missed: {failure}")
    return print_result(not failures, {"benchmark": "precisions", "rows": [asdict(row) for row in rows]})


def answers(runtime: Runtime, images: Float32Array, classes: npt.NDArray[np.int64], title: str) -> Answers:
    """Run the images (N, 3, H, W) of these classes (N,) one by one."""
    zero, outputs, times = np.zeros(1, np.float32), [], []
    for image in tqdm(images, desc=title, unit="image", leave=False):
        started = time.perf_counter()
        outputs.append(runtime.run(image[None], zero))
        times.append(time.perf_counter() - started)
    logits, margins = (np.concatenate(each) for each in zip(*outputs, strict=True))
    manifest, predictions = runtime.manifest, logits.argmax(axis=1)
    executed = manifest.executed(margins, np.zeros(len(margins), np.float32))
    macs = float(manifest.spent_macs(executed).mean() / manifest.ungated_macs)
    opened = margins > np.float32(manifest.gate_threshold)
    return Answers(predictions == classes, predictions, opened, macs, 1000 * float(np.median(times)))


def beside(exact: Answers, runtime: str, precision: Precision, found: Answers) -> Precise:
    """One runtime's answers compared with those in fp32."""
    gained, same_gates = found.right.astype(np.float64) - exact.right, found.opened == exact.opened
    return Precise(
        runtime=runtime,
        precision=precision,
        accuracy=float(found.right.mean()),
        difference=float(gained.mean()),
        interval=float(1.96 * gained.std() / np.sqrt(len(gained))),
        macs=found.macs,
        equal_predictions=float((found.predictions == exact.predictions).mean()),
        equal_gates=float(same_gates.mean()) if same_gates.size else 1.0,
        other_paths=float((~same_gates).any(axis=1).mean()),
        image_ms=found.image_ms,
    )


def problems(rows: Sequence[Precise]) -> list[str]:
    """Why a precision is not worth having; rows from the highest down."""
    found = [f"{row.runtime} loses {-row.difference:.2%} of accuracy" for row in rows if row.difference <= -_MOST_LOST]
    for above, row in pairwise(rows):
        if row.image_ms >= above.image_ms:
            found.append(f"{row.runtime} takes {row.image_ms:.3f} ms, {above.runtime} {above.image_ms:.3f}")
    return found


def _table(rows: Sequence[Precise]) -> str:
    head = (
        "runtime",
        "accuracy",
        "difference (95% interval)",
        "MACs",
        "predictions equal",
        "gates equal",
        "other paths",
        "ms an image",
    )
    cells = [
        (
            row.runtime,
            f"{row.accuracy:.2%}",
            f"{100 * row.difference:+.2f} points (±{100 * row.interval:.2f})",
            f"{row.macs:.1%}",
            f"{row.equal_predictions:.1%}",
            f"{row.equal_gates:.1%}",
            f"{row.other_paths:.1%}",
            f"{row.image_ms:.3f}",
        )
        for row in rows
    ]
    return table(head, cells)


if __name__ == "__main__":
    sys.exit(main())
