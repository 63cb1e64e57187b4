"""The workers that take image files: made as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from artifact.manifest import Manifest
from artifact.probes import read_probes
from service.engine.ipc.codec import OutcomeCodec
from service.engine.runtimes.base import Runtime, description
from service.engine.runtimes.selection import open_runtime
from service.engine.runtimes.tuning import tune
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import Model, ModelSource, WorkerPool, process_pool, proven
from service.engine.workers.process import WorkerProcess
from service.engine.workers.thread import ThreadWorker
from service.images.bounded_decoder import bounded_decoder
from service.images.decoding import IMAGE_ERRORS
from service.settings import Settings


def begin_pool(settings: Settings, folder: Path, manifest: Manifest) -> Callable[[], WorkerPool]:
    """Start the first worker, with one model; return a function that waits for it and makes the others."""
    source = ModelSource(0, folder, manifest)
    if settings.isolation == "thread":
        threads = ThreadWorkshop(settings)
        return lambda: threads.pool(source)
    processes = ProcessWorkshop(settings)
    first = processes.worker([source])
    first.launch(tune=True)
    return lambda: process_pool(source, first, lambda: processes.worker([source]), processes)


def local_worker(settings: Settings, folder: Path) -> tuple[Runtime, LocalWorker]:
    """A model and a worker that runs it, in this process."""
    runtime = open_runtime(folder, settings.runtime, settings.device, settings.precision, settings.cache)
    decoder = bounded_decoder(settings, runtime.manifest)
    return runtime, LocalWorker(runtime, decoder.decode, prepare_dear=decoder.decode_dear)


class ProcessWorkshop:
    """Makes workers that are processes.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._candidate: WorkerProcess | None = None

    def prove(self, source: ModelSource) -> Model:
        """See `Workshop`: in a process of its own, which is ended."""
        process = self._candidate = self.worker([source])
        try:
            process.launch(tune=True)
            return proven(source, process)[0]
        finally:
            process.abort()
            process.close()
            self._candidate = None

    def give_up(self) -> None:
        """See `Workshop`."""
        if candidate := self._candidate:
            candidate.abort()

    def worker(self, models: Sequence[ModelSource]) -> WorkerProcess:
        """A worker, not launched yet, that serves no others than these models."""
        told = [
            {"number": each.number, "folder": str(each.folder), "manifest": each.manifest.model_dump(mode="json")}
            for each in models
        ]
        return WorkerProcess(
            "service.images.worker_main",
            {"settings": self._settings.model_dump(mode="json"), "models": told},
            {each.number: OutcomeCodec(each.manifest, IMAGE_ERRORS) for each in models},
            self._settings.stuck_seconds,
        )


class ThreadWorkshop:
    """Makes workers that are threads of this process, which share the models.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: dict[int, LocalWorker] = {}

    def pool(self, source: ModelSource) -> WorkerPool:
        """The workers of the first model."""
        model = self.prove(source)
        return WorkerPool(model, [self.worker([model]) for _ in range(model.tuning.policy.workers)], self)

    def prove(self, source: ModelSource) -> Model:
        """See `Workshop`: right here, where it stays opened."""
        runtime, worker = local_worker(self._settings, source.folder)
        probes = read_probes(source.folder, runtime.manifest).images
        tuning = tune(runtime, probes, self._settings.policy_wishes)
        self._workers[source.number] = worker
        return Model(source.number, source.folder, source.manifest, description(runtime), tuning)

    def give_up(self) -> None:
        """Do nothing: what runs in this process cannot be stopped."""

    def worker(self, models: Sequence[ModelSource]) -> ThreadWorker:
        """A worker that runs these models; those that no worker is made for any more are let go."""
        self._workers = {each.number: self._workers[each.number] for each in models}
        return ThreadWorker(self._workers)
