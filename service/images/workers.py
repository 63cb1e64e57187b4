"""The workers that take image files: made as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

from artifact.manifest import Manifest
from artifact.probes import read_probes
from service.engine.devices.process import DeviceProcess, cuda_name
from service.engine.ipc.codec import OutcomeCodec
from service.engine.nvidia_driver import settled_device, warn_of_its_lack
from service.engine.runtimes.base import Runtime, description
from service.engine.runtimes.registry import RUNTIMES
from service.engine.runtimes.selection import open_runtime
from service.engine.runtimes.tuning import tune
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import Model, ModelSource, WorkerPool, process_pool, proven
from service.engine.workers.process import WorkerProcess
from service.engine.workers.thread import ThreadWorker
from service.images.bounded_decoder import bounded_decoder
from service.images.decoding import IMAGE_ERRORS
from service.settings import Settings

DEVICE_MODULE = "service.images.device_main"
"""What the process of a device runs."""


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
    """A model and a worker that runs it, in this process.

    Raises:
        ArtifactError, RuntimeUnavailable: see `open_runtime`.
    """
    warn_of_its_lack(settings.device_kind)
    device = settled_device(settings.device_kind)
    runtime = open_runtime(folder, settings.runtime, device, settings.precision, settings.cache)
    decoder = bounded_decoder(settings, runtime.manifest)
    return runtime, LocalWorker(runtime, decoder.decode, prepare_dear=decoder.decode_dear)


def cuda_devices(settings: Settings) -> tuple[int, ...]:
    """Which devices run models, in processes of their own; none where the CPU does.

    Raises:
        RuntimeUnavailable: a GPU is asked for, and there is no driver for one.
    """
    runtime = settings.runtime
    if (runtime != "auto" and "cuda" not in RUNTIMES[runtime].devices) or settled_device(settings.device_kind) == "cpu":
        return ()
    return settings.cuda_devices or (0,)


def observed_devices(settings: Settings, pool: WorkerPool) -> dict[int, str]:
    """What CUDA calls the devices that run the first model in processes of their own, by their numbers."""
    if settings.isolation == "thread" or pool.model.runtime.device != "cuda":
        return {}
    return {number: cuda_name(number) for number in cuda_devices(settings)}


class ProcessWorkshop:
    """Makes workers that are processes.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._candidate: WorkerProcess | None = None
        options = settings.model_dump(mode="json")
        warn_of_its_lack(settings.device_kind)
        self._devices = [DeviceProcess(DEVICE_MODULE, number, options) for number in cuda_devices(settings)]
        self._next_device = cycle(self._devices or [None])

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

    def close(self) -> None:
        """See `Workshop`."""
        for device in self._devices:
            device.close()

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
            next(self._next_device),
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

    def close(self) -> None:
        """Do nothing: threads have nothing else in common."""

    def worker(self, models: Sequence[ModelSource]) -> ThreadWorker:
        """A worker that runs these models; those that no worker is made for any more are let go."""
        self._workers = {each.number: self._workers[each.number] for each in models}
        return ThreadWorker(self._workers)
