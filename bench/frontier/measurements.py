"""What a network of the frontier does with the images held out of training: accuracy, MACs and time by precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from artifact.preprocessing import Float32Array
from bench.frontier.networks import Entry
from bench.timing import paired
from service.engine.runtimes.base import Precision, Runtime
from service.engine.runtimes.selection import open_runtime

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True)
class Point:
    """One network at one offset in one precision.

    Attributes:
        kind, name, seed: of the network.
        at: what the offset stands for, such as the share of images that the second network is asked for.
        precision: of its convolutions.
        accuracy: of the held-out images.
        macs: millions spent on an image, mean.
        time_ratio: mean time of an image, of that of the yardstick; NaN where it was not timed.
    """

    kind: str
    name: str
    seed: int
    at: str
    precision: Precision
    accuracy: float
    macs: float
    time_ratio: float


@dataclass(frozen=True)
class Run:
    """A network opened in a precision, and the held-out images."""

    entry: Entry
    at: str
    runtime: Runtime
    images: Float32Array

    def logits(self) -> tuple[Float32Array, Float32Array]:
        """Logits and MACs of every image, one at a time, as the service runs them."""
        offset = np.full(1, self.entry.offsets[self.at], np.float32)
        answers = [self.runtime.run(image[None], offset) for image in self.images]
        logits, margins = (np.concatenate(each) for each in zip(*answers, strict=True))
        manifest = self.runtime.manifest
        executed = manifest.executed(margins, np.resize(offset, len(margins)))
        return logits, manifest.spent_macs(executed).astype(np.float32)

    def __call__(self) -> None:
        """Run all images, as often as they are, for their time."""
        offset = np.full(1, self.entry.offsets[self.at], np.float32)
        for image in self.images:
            self.runtime.run(image[None], offset)


def runs(entries: Sequence[Entry], images: Float32Array) -> list[Run]:
    """Every network at each of its offsets in each precision, in the compiled runtime, which serves fastest."""
    opened = []
    for entry in tqdm(entries, desc="opening", unit="network", leave=False):
        for precision in PRECISIONS:
            runtime = open_runtime(entry.folder, "compiled", "cpu", precision)
            opened += [Run(entry, at, runtime, images) for at in entry.offsets]
    return opened


def measure(
    opened: Sequence[Run], classes: npt.NDArray[np.int64], yardstick: Callable[[Run], bool], rounds: int
) -> list[Point]:
    """Accuracy, MACs and, of the first seed, time of all of these.

    Args:
        classes: (N,) of the images.
        yardstick: tells the run whose time is 1.
        rounds: times of each.
    """
    answers = [run.logits() for run in tqdm(opened, desc="answers", unit="run", leave=False)]
    base = next(run for run in opened if yardstick(run))
    timed = {str(number): run for number, run in enumerate(opened) if run.entry.seed == 0}
    ratios: Mapping[str, npt.NDArray[np.float64]] = paired(base, timed, rounds, 0.0, "times") if rounds else {}
    return [
        Point(
            kind=run.entry.kind,
            name=run.entry.name,
            seed=run.entry.seed,
            at=run.at,
            precision=run.runtime.precision,
            accuracy=float((logits.argmax(axis=1) == classes).mean()),
            macs=float(macs.mean()) / 1e6,
            time_ratio=median(ratios[str(number)].tolist()) if str(number) in ratios else float("nan"),
        )
        for number, (run, (logits, macs)) in enumerate(zip(opened, answers, strict=True))
    ]
