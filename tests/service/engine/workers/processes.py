"""Worker processes of tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from service.engine.ipc.codec import OutcomeCodec
from service.engine.job import Answer, ImageJob, Outcome
from service.engine.workers.process import WorkerProcess
from tests.runtimes import PATIENCE_S, echo_manifest
from tests.service.engine.looped import Master
from tests.service.engine.workers.echo_worker import BadNumber

MODULE = "tests.service.engine.workers.echo_worker"
MakeWorker = Callable[..., WorkerProcess]
MakeMaster = Callable[..., Master]


def echo_process(stuck_s: float = PATIENCE_S, **options: object) -> WorkerProcess:
    """A worker process that is not launched yet; what the options do is seen in `echo_worker`."""
    return WorkerProcess(MODULE, options, {0: OutcomeCodec(echo_manifest(), [BadNumber])}, stuck_s)


def job(image: bytes, within: float = PATIENCE_S) -> ImageJob:
    """One that is asked for now."""
    now = time.monotonic()
    return ImageJob(image, now, now + within)


def jobs(*images: str) -> list[ImageJob]:
    return [job(image.encode()) for image in images]


def values(outcomes: Sequence[Outcome]) -> list[float | str]:
    """The number each job was answered with, or the name of its failure."""
    return [float(one.logits[0]) if isinstance(one, Answer) else type(one).__name__ for one in outcomes]


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (of names that are gone before they could be looked at)
