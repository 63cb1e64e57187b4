"""The workers that take image files: made as the settings say."""

from __future__ import annotations

from collections.abc import Callable

from artifact.manifest import Manifest
from artifact.probes import read_probes
from service.engine.ipc.codec import OutcomeCodec
from service.engine.runtimes.base import Runtime
from service.engine.runtimes.selection import open_runtime
from service.engine.runtimes.tuning import tune
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import WorkerPool, local_pool, process_pool
from service.engine.workers.process import WorkerProcess
from service.images.bounded_decoder import bounded_decoder
from service.images.decoding import IMAGE_ERRORS
from service.settings import Settings


def begin_pool(settings: Settings, manifest: Manifest) -> Callable[[], WorkerPool]:
    """Start the first worker; return a function that waits for it and makes the others."""
    if settings.isolation == "thread":
        return lambda: _thread_pool(settings)
    first = _worker_process(settings, manifest)
    first.launch(tune=True)
    return lambda: process_pool(manifest, first, lambda: _worker_process(settings, manifest))


def _thread_pool(settings: Settings) -> WorkerPool:
    runtime, worker = local_worker(settings)
    tuning = tune(runtime, read_probes(settings.model, runtime.manifest).images, settings.policy_wishes)
    return local_pool(runtime, worker, tuning)


def local_worker(settings: Settings) -> tuple[Runtime, LocalWorker]:
    """The model and a worker that runs it, in this process."""
    runtime = open_runtime(settings.model, settings.runtime, settings.device, settings.precision, settings.cache)
    decoder = bounded_decoder(settings, runtime.manifest)
    return runtime, LocalWorker(runtime, decoder.decode, prepare_dear=decoder.decode_dear)


def _worker_process(settings: Settings, manifest: Manifest) -> WorkerProcess:
    """A worker, not launched yet, that serves no other model than this one."""
    options = {"settings": settings.model_dump(mode="json"), "manifest": manifest.model_dump(mode="json")}
    return WorkerProcess(
        "service.images.worker_main", options, OutcomeCodec(manifest, IMAGE_ERRORS), settings.stuck_seconds
    )
