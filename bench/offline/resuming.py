"""The program is killed in the middle of a dataset and goes on; then every image must be in the answers once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.dataset as ds

from bench.process_tree import children_by_parent, proportional_bytes

_ROOT = Path(__file__).resolve().parents[2]
_SAMPLE_S = 1.0


@dataclass
class Resumed:
    """What was seen.

    Attributes:
        parts_before: that there were when the program had been killed.
        memory_bytes: of all processes, one sample a second, of each of both runs.
        problems: what should not be.
    """

    parts_before: int = 0
    memory_bytes: list[list[int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Memory in the last quarter of a run, of that in its second; of the run where that is more."""
        return max((_growth(samples) for samples in self.memory_bytes), default=1.0)


def kill_and_resume(model: Path, shards: Path, answers: Path, images: int) -> Resumed:
    """Classify shards, killed when half of the images are there, and again to the end."""
    command = [sys.executable, "-m", "service", "classify-dataset", str(shards), str(answers), "--model", str(model)]
    resumed = Resumed()
    half = max(1, images // 2 // 4096)
    process = subprocess.Popen(command, cwd=_ROOT)
    resumed.memory_bytes.append([*_samples(process, lambda: len(_parts(answers)) >= half)])
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = _parts(answers)
    resumed.parts_before = len(before)
    process = subprocess.Popen(command, cwd=_ROOT)
    resumed.memory_bytes.append([*_samples(process, lambda: False)])
    if process.wait():
        resumed.problems.append(f"the second run ended with {process.returncode}")
    after = _parts(answers)
    resumed.problems += [f"{name} was made again" for name, stamp in before.items() if after.get(name) != stamp]
    resumed.problems += miscounted(answers, images)
    return resumed


def miscounted(answers: Path, images: int) -> list[str]:
    """What is wrong with answers that should have the images 0, 1, 2 ... by name, each once and without an error."""
    times, failed = np.zeros(images, np.int64), 0
    for batch in ds.dataset(answers).to_batches(columns=["name", "error"]):
        numbers = [int(name.partition(".")[0]) for name in batch.column("name").to_pylist()]
        times += np.bincount(numbers, minlength=images)[:images]
        failed += len(batch) - batch.column("error").null_count
    missing, twice = int((times == 0).sum()), int((times > 1).sum())
    counts = {"missing": missing, "there more than once": twice, "with errors": failed}
    return [f"{count} images are {what}" for what, count in counts.items() if count]


def _growth(samples: list[int]) -> float:
    quarter = len(samples) // 4
    return median(samples[-quarter:]) / median(samples[quarter : 2 * quarter]) if quarter else 1.0


def _samples(process: subprocess.Popen[bytes], enough: Callable[[], bool]) -> Iterator[int]:
    """Memory of a process and those it has started, each second, until it ends or that is enough."""
    while process.poll() is None and not enough():
        yield sum(map(proportional_bytes, with_descendants(process.pid)))
        time.sleep(_SAMPLE_S)


def with_descendants(pid: int) -> list[int]:
    """A process and all that it and these have started and that live."""
    children, found = children_by_parent(), [pid]
    for each in found:
        found += children[each]
    return found


def _parts(answers: Path) -> dict[str, tuple[int, int]]:
    """The parts there are, and what changes when one is made again."""
    stats = {path.name: path.stat() for path in answers.glob("part-*.parquet")}
    return {name: (told.st_ino, told.st_mtime_ns) for name, told in stats.items()}
