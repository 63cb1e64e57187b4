"""How many workers run images, how many at a time, and how long a batch may fill: measured on this machine, or set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from artifact.cores import usable_cores
from artifact.preprocessing import Float32Array
from service.engine.errors import InferenceFailed
from service.engine.runtimes.base import Runtime

Source = Literal["set", "measured", "fixed"]

_SECONDS_EACH = 0.05
# A larger number must win by this much: more threads and larger batches cost memory and, for some, time.
_GAIN = 1.05
_LARGEST_BATCH = {"cpu": 16, "cuda": 32}


@dataclass(frozen=True)
class BatchPolicy:
    """How batches form.

    Attributes:
        workers: how many take batches; where they do not wait, what is queued is shared out among them.
        max_batch: most requests in a batch.
        max_wait_ms: how long the oldest request may wait for company; 0 takes at once what is there.
    """

    workers: int
    max_batch: int
    max_wait_ms: float


@dataclass(frozen=True)
class PolicyWishes:
    """What the user set of a `BatchPolicy`; None leaves it to measuring."""

    workers: int | None = None
    max_batch: int | None = None
    max_wait_ms: float | None = None


@dataclass(frozen=True)
class Tuning:
    """A batch policy and where each part of it comes from."""

    policy: BatchPolicy
    workers: Source = "set"
    max_batch: Source = "set"
    max_wait_ms: Source = "set"


def tune(runtime: Runtime, images: Float32Array, wishes: PolicyWishes) -> Tuning:
    """Measure what the user has not set.

    A batch is worth forming only where its images together take less time than one by one. It is not worth waiting for:
    a CPU has something to do at once, and the process of a GPU merges what comes while it runs. Workers that have a GPU
    run their models decode, one on each core.

    Args:
        runtime: opened for the model.
        images: (N, 3, H, W) to measure with.
        wishes: of the user.

    Raises:
        InferenceFailed: the model does not run here.
    """
    if wishes.workers and wishes.max_batch and wishes.max_wait_ms is not None:
        return Tuning(BatchPolicy(wishes.workers, wishes.max_batch, wishes.max_wait_ms))
    try:
        _run(runtime, images[:1])  # what is slow the first time is no measure
        max_batch = wishes.max_batch or _best_batch(runtime, images)
        decode_alone = runtime.device == "cuda"
        workers = wishes.workers or (usable_cores() if decode_alone else _best_threads(runtime, images, max_batch))
    except Exception as error:  # whatever a runtime raises
        raise InferenceFailed from error
    return Tuning(
        BatchPolicy(workers, max_batch, wishes.max_wait_ms or 0.0),
        workers="set" if wishes.workers else "fixed" if decode_alone else "measured",
        max_batch="set" if wishes.max_batch else "measured",
        max_wait_ms="fixed" if wishes.max_wait_ms is None else "set",
    )


def _best_batch(runtime: Runtime, images: Float32Array) -> int:
    """The smallest batch whose images take (almost) the least time each; 1 where batches gain nothing."""
    if not runtime.runs_batches:
        return 1

    def seconds_each(size: int) -> float:
        batch = np.resize(images, (size, *images.shape[1:]))
        return _seconds(lambda: _run(runtime, batch)) / size

    return _preferred(_doubling(_LARGEST_BATCH[runtime.device]), lambda size: 1 / seconds_each(size))


def _best_threads(runtime: Runtime, images: Float32Array, batch: int) -> int:
    """As many threads as together run (almost) the most images a second.

    It is one for every core, unless fewer are clearly faster: on a machine that is busy while this measures, the second
    thread may gain nothing now, and be missed for good.
    """
    batch_images = np.resize(images, (batch, *images.shape[1:]))

    def images_per_s(count: int) -> float:
        with ThreadPoolExecutor(count) as pool:
            taken = [pool.submit(_seconds, lambda: _run(runtime, batch_images)) for _ in range(count)]
            return sum(1 / seconds.result() for seconds in taken)

    return _preferred(_doubling(usable_cores())[::-1], images_per_s)


def _preferred(sizes: Sequence[int], speed: Callable[[int], float]) -> int:
    """The first of the sizes, or a later one that is clearly faster than those before it."""
    best, best_speed = 0, 0.0
    for size in sizes:
        measured = speed(size)
        if measured > _GAIN * best_speed:
            best, best_speed = size, measured
    return best


def _doubling(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return [*(1 << power for power in range((most - 1).bit_length())), most]


def _seconds(run: Callable[[], None]) -> float:
    """Median of the seconds a run takes, of as many as fit into a moment."""
    taken: list[float] = []
    give_up = time.perf_counter() + _SECONDS_EACH
    while not taken or time.perf_counter() < give_up:
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def _run(runtime: Runtime, images: Float32Array) -> None:
    runtime.run(images, np.zeros(len(images), np.float32))
