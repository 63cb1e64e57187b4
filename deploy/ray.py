"""The service on a Ray cluster: `serve run deploy.ray:app model=FOLDER`, or `serve deploy deploy/ray-serve.yaml`.

An application is two deployments. `Ingress` is the service itself: it takes requests, and has the queue, the limits,
the keys, the page and the metrics. Its workers are elsewhere: the batches it forms go to replicas of `Engine`, each of
which has worker processes on the CPUs, or the GPU, that Ray gives it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

import ray
from pydantic_settings import SettingsError
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from starlette.types import Message, Receive, Scope, Send

from artifact.manifest import ArtifactError
from deploy.ray_engine import NOBODY, Engines
from deploy.ray_metrics import RayMetrics
from service.access.key_file import KeyFile
from service.access.keys import KeyFileError
from service.app import Service, create_app
from service.classify.context import Context
from service.engine.errors import EngineError, WorkerLost
from service.engine.ipc.codec import OutcomeCodec
from service.engine.workers.pool import Model, WorkerPool
from service.engine.workers.remote import RemoteWorker
from service.images.decoding import IMAGE_ERRORS
from service.observability.logs import logged
from service.observability.opening import open_tracing
from service.settings import Settings, read_settings

_log = logging.getLogger("service.ray")

# How often a batch is sent, all in all: a replica that dies takes nothing with it that another could not run as well.
_TRIES = 3
# How long is waited before that is done again, in seconds: whoever chooses replicas has to hear of the loss.
_AGAIN_S = 0.05
# How often the replicas are counted, and how long they may take to answer, in seconds.
_COUNT_S, _LONGEST_COUNT_S = 1.0, 5.0
# How long all replicas may take to open a model before requests come for it, in seconds.
_LONGEST_OPEN_S = 120.0
# Calls that may wait at a replica; those who send them see to it that hardly any do.
_MOST_CALLS = 256
# Settings of what Ray Serve does in its own way, or of what it has no way for.
_NOT_HERE = ("admin_socket", "grpc_port", "metrics_port", "model_repository", "root_path")

# The service has an access log of its own, and of batches there would be no end.
_QUIET = {"enable_access_log": False}


def app(args: dict[str, Any]) -> serve.Application:
    """The application; Ray Serve calls this.

    Args:
        args: settings of the service by name, see `service.settings`, as `model` or `queue_size`.

    Raises:
        SettingsError: one is not known, or can count for nothing here.
        ValidationError: a value cannot be.
    """
    settings = read_settings(args)
    if told := settings.model_fields_set.intersection(_NOT_HERE):
        raise SettingsError(f"{min(told)} counts for nothing under Ray Serve; see docs/ray.md")
    settings = settings.model_copy(update={"model": settings.model.resolve()})
    drain_s = math.ceil(settings.drain_seconds) + 5
    engine = serve.deployment(
        name="Engine", max_ongoing_requests=_MOST_CALLS, graceful_shutdown_timeout_s=drain_s, logging_config=_QUIET
    )(EngineReplica)
    ingress = serve.deployment(
        name="Ingress",
        max_ongoing_requests=settings.max_connections,
        graceful_shutdown_timeout_s=drain_s,
        logging_config=_QUIET,
    )(serve.ingress(IngressApp(settings))())
    return ingress.bind(engine.bind(settings))


class EngineReplica:
    """A replica of the engine. There is no `serve.batch`: the ingress has formed batches, for these very workers.

    Args:
        settings: of the service.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        self._log = ExitStack()
        self._log.enter_context(logged(settings.log_format, settings.log_level))
        if settings.workers is None:  # cores of this machine that Ray has given to others are none of ours
            cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1)
            settings = settings.model_copy(update={"workers": max(1, int(cpus))})
        self._engines = Engines(settings)
        await self._engines.open(str(settings.model))

    async def open(self, folder: str) -> Model:
        """See `Engines`."""
        return await self._engines.open(folder)

    async def workers(self, folder: str) -> int:
        """See `Engines`."""
        return self._engines.workers(folder)

    async def run(self, folder: str, frame: bytes) -> bytes:
        """See `Engines`."""
        return await self._engines.run(folder, frame)

    async def check_health(self) -> None:
        """Return if the replica need not be replaced; called by Ray Serve."""
        if problem := self._engines.problem:
            raise RuntimeError(problem)

    async def __del__(self) -> None:
        """End with the replica; called by Ray Serve when nothing is in progress any more."""
        await self._engines.close()
        self._log.close()


class IngressApp:
    """The ASGI application of a replica of the ingress, made when that starts.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._service: Service | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and stop with the replica."""
        if self._service is not None:
            await self._service(scope, _told_of_departures(receive), _without_request_id(send))
            return
        await receive()  # lifespan.startup
        async with AsyncExitStack() as stack:
            stack.enter_context(logged(self._settings.log_format, self._settings.log_level))
            replicas = _Replicas(str(self._settings.model), self._settings)
            try:
                self._service = service = await replicas.service()
                await stack.enter_async_context(service.running())
            except (ArtifactError, EngineError, KeyFileError, SettingsError) as error:
                await send({"type": "lifespan.startup.failed", "message": " ".join(str(error).split())})
                return
            following = asyncio.get_running_loop().create_task(replicas.follow(service.context))
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
            following.cancel()
        await send({"type": "lifespan.shutdown.complete"})


def _told_of_departures(receive: Receive) -> Receive:
    """What comes of a client, as ASGI has it: Ray Serve raises an error where the client has left."""

    async def receive_or_leave() -> Message:
        try:
            return await receive()
        except RayError:
            return {"type": "http.disconnect"}

    return receive_or_leave


def _without_request_id(send: Send) -> Send:
    """What is answered, without the header that Ray Serve adds: the request brought it, with the same id."""

    async def send_without(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [each for each in message.get("headers", ()) if each[0].lower() != b"x-request-id"]
            message = {**message, "headers": headers}
        await send(message)

    return send_without


class _Replicas:
    """The replicas of the engine, as the ingress knows them.

    Args:
        folder: of the model they run for it.
        settings: of the service.
    """

    def __init__(self, folder: str, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings
        self._handle = serve.get_deployment_handle("Engine")
        self._workers = 0
        self._codec: OutcomeCodec | None = None
        self._side = 0

    async def service(self) -> Service:
        """The service, whose workers are all that the replicas have.

        Raises:
            ArtifactError, EngineError: the model cannot be run.
            KeyFileError, SettingsError: something that is set cannot be used.
        """
        model: Model = await self._handle.open.remote(self._folder)
        with suppress(TimeoutError):  # images for one that takes longer wait there
            opening = self._handle.broadcast("open", self._folder)
            await opening.results_async(timeout_s=_LONGEST_OPEN_S, return_exceptions=True)
        self._codec = OutcomeCodec(model.manifest, IMAGE_ERRORS)
        self._side = model.manifest.input_size
        await self._count()
        pool = WorkerPool(model, [self._worker() for _ in range(max(1, self._workers))])
        keys = KeyFile(self._settings.api_keys) if self._settings.api_keys else None
        return create_app(self._settings, pool, keys, open_tracing(self._settings))

    async def follow(self, served: Context) -> None:
        """Have as many workers as the replicas have, and tell Ray the metrics, from now on."""
        crew, metrics = served.engine.crew, RayMetrics(served.metrics.registry)
        while True:
            await asyncio.sleep(_COUNT_S)
            try:
                metrics.tell()
                await self._count()
                # The last one stays where there is no replica: what it is given waits for the next.
                await crew.resize(max(1, self._workers), self._worker)
            except Exception as error:  # lest it be the last time
                _log.warning("the replicas of the engine could not be counted: %s", error)

    async def _count(self) -> None:
        counting = self._handle.broadcast("workers", self._folder)
        told = await counting.results_async(timeout_s=_LONGEST_COUNT_S, return_exceptions=True)
        self._workers = sum(count for count in told if isinstance(count, int))

    def _worker(self) -> RemoteWorker:
        assert self._codec is not None
        # A replica has its own way with workers that are stuck, which comes first.
        stuck_s = 2 * self._settings.stuck_seconds
        return RemoteWorker(self._run, self._codec, self._side, stuck_s, lambda: self._workers > 0)

    async def _run(self, frame: bytes) -> bytes:
        """Have a batch run by any of them."""
        for _ in range(_TRIES):
            try:
                outcomes: bytes = await self._handle.run.remote(self._folder, frame)
            except RayTaskError:  # the replica is there, and says so
                raise
            except (RayError, RayServeException) as error:
                _log.warning("a replica of the engine was lost with a batch: %s", type(error).__name__)
            else:
                if outcomes != NOBODY:
                    return outcomes
                _log.warning("a replica of the engine has no worker for a batch")
            await asyncio.sleep(_AGAIN_S)
        raise WorkerLost("died")
