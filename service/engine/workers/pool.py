"""The workers of one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from artifact.manifest import Manifest
from service.engine.errors import WorkerLost
from service.engine.ipc.handshake import Opened
from service.engine.runtimes.base import Runtime, RuntimeDescription, description
from service.engine.runtimes.tuning import Tuning
from service.engine.workers.base import Worker
from service.engine.workers.local import LocalWorker
from service.engine.workers.process import WorkerProcess
from service.engine.workers.thread import ThreadWorker


@dataclass(frozen=True)
class WorkerPool:
    """Workers that run the same model in the same way.

    Attributes:
        manifest: of the model.
        runtime: how they run it.
        tuning: how batches form for them.
        workers: as many as the tuning says.
    """

    manifest: Manifest
    runtime: RuntimeDescription
    tuning: Tuning
    workers: Sequence[Worker]


def local_pool(runtime: Runtime, worker: LocalWorker, tuning: Tuning) -> WorkerPool:
    """Workers that are threads of this process."""
    threads = [ThreadWorker(worker) for _ in range(tuning.policy.workers)]
    return WorkerPool(runtime.manifest, description(runtime), tuning, threads)


def process_pool(manifest: Manifest, first: WorkerProcess, make_worker: Callable[[], WorkerProcess]) -> WorkerPool:
    """Workers that are processes, when the first of them has opened the model.

    Args:
        manifest: of the model.
        first: launched, and asked to tune.
        make_worker: makes another one like it.

    Raises:
        ArtifactError, RuntimeUnavailable, InferenceFailed, WorkerLost: the first could not open it.
    """
    opened = _opened(first)
    if opened.tuning is None:
        raise ValueError("the first worker process must be asked to tune")
    workers = [first, *(make_worker() for _ in range(opened.tuning.policy.workers - 1))]
    # A process that has tried every runtime keeps their libraries in its memory, which costs the one that is used.
    for worker in workers if opened.first else workers[1:]:
        worker.launch()
    return WorkerPool(manifest, opened.runtime, opened.tuning, workers)


def _opened(first: WorkerProcess) -> Opened:
    """What the first process says of the model; one that dies before it says anything is replaced, once.

    What it died of may have been machine code that was kept: then its successor knows, and makes that anew.
    """
    try:
        return first.opened()
    except WorkerLost as loss:
        if loss.reason != "died":
            raise
    first.launch(tune=True)
    return first.opened()
