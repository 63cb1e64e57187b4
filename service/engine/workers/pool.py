"""Models, the workers that run them, and where more of those come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
class ModelSource:
    """A model that is to be opened.

    Attributes:
        number: that jobs name it by; no other model ever has it.
        folder: of the artifact.
        manifest: as it was read from there.
    """

    number: int
    folder: Path
    manifest: Manifest


@dataclass(frozen=True)
class Model(ModelSource):
    """A model that was opened and proven on this machine.

    Attributes:
        runtime: how it is run.
        tuning: how batches form for it.
    """

    runtime: RuntimeDescription
    tuning: Tuning


class Workshop(Protocol):
    """Makes workers."""

    def prove(self, source: ModelSource) -> Model:
        """Open a model where it can do no harm, and measure how it is best run; takes seconds.

        Raises:
            ArtifactError, RuntimeUnavailable, InferenceFailed, WorkerLost: it cannot be run.
        """

    def give_up(self) -> None:
        """Have what is being proven fail, as far as that can be done; called by any thread."""

    def worker(self, models: Sequence[Model]) -> Worker:
        """A worker that runs these models, not started yet."""

    def close(self) -> None:
        """End what workers had in common; there are none any more."""


@dataclass(frozen=True)
class WorkerPool:
    """Workers that run one model, so far.

    Attributes:
        model: that they run.
        workers: as many as its tuning says.
        workshop: makes others, where there may be others.
    """

    model: Model
    workers: Sequence[Worker]
    workshop: Workshop | None = None


def local_pool(runtime: Runtime, worker: LocalWorker, tuning: Tuning, workshop: Workshop | None = None) -> WorkerPool:
    """Workers that are threads of this process."""
    model = Model(0, Path(), runtime.manifest, description(runtime), tuning)
    return WorkerPool(model, [ThreadWorker({0: worker}) for _ in range(tuning.policy.workers)], workshop)


def process_pool(
    source: ModelSource,
    first: WorkerProcess,
    make_worker: Callable[[], WorkerProcess],
    workshop: Workshop | None = None,
) -> WorkerPool:
    """Workers that are processes, when the first of them has opened the model.

    Args:
        source: of the model.
        first: launched, and asked to tune.
        make_worker: makes another one like it.
        workshop: makes those for other models.

    Raises:
        ArtifactError, RuntimeUnavailable, InferenceFailed, WorkerLost: the first could not open it.
    """
    model, opened = proven(source, first)
    workers = [first, *(make_worker() for _ in range(model.tuning.policy.workers - 1))]
    # A process that has tried every runtime keeps their libraries in its memory, which costs the one that is used.
    for worker in workers if opened.first else workers[1:]:
        worker.launch()
    return WorkerPool(model, workers, workshop)


def proven(source: ModelSource, process: WorkerProcess) -> tuple[Model, Opened]:
    """A model, and what the process says that has opened it alone.

    Args:
        source: of the model.
        process: launched, and asked to tune.

    Raises:
        ArtifactError, RuntimeUnavailable, InferenceFailed, WorkerLost: it could not open it.
    """
    opened = _opened(process)
    if opened.tuning is None:
        raise ValueError("the first worker process must be asked to tune")
    return Model(source.number, source.folder, source.manifest, opened.runtime, opened.tuning), opened


def _opened(process: WorkerProcess) -> Opened:
    """What a process says of its only model; one that dies before it says anything is replaced, once.

    What it died of may have been machine code that was kept: then its successor knows, and makes that anew.
    """
    try:
        return process.opened()[0]
    except WorkerLost as loss:
        if loss.reason != "died":
            raise
    process.launch(tune=True)
    return process.opened()[0]
