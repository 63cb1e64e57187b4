"""The web application: routes, errors, metrics, and the engine's start and stop.

`python -m service` runs it on uvicorn. Other ASGI servers can run it too, with settings from the environment (AIG_...):

    granian --interface asgi --factory service.app:application
    hypercorn "service.app:application()"

One worker process of the server is enough: inference has its own. How many connections there may be, how long they may
idle, and what happens on signals is the server's business then.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from pydantic_settings import SettingsError
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from service import errors
from service.access.key_file import KeyFile
from service.access.keys import KeySource
from service.access.ledger import Ledger
from service.access.metrics import KeyMetrics
from service.classify.body_budget import BodyBudget
from service.classify.context import Context
from service.engine.crew import Crew
from service.engine.workers.pool import WorkerPool
from service.grpc.opening import open_grpc
from service.http import model_routes
from service.http.access import Access
from service.http.endpoint import Routing
from service.http.forwarded_prefix import ForwardedPrefix
from service.http.head_requests import HeadAsGet
from service.http.last_answer import LastAnswer
from service.http.loop_priority import LoopPriority
from service.http.metrics_port import metrics_port
from service.http.observation import Observation
from service.http.openapi import describe_api
from service.http.protocol_routes import protocol_router
from service.http.route_names import RouteNames
from service.http.routes import metrics_router, router
from service.http.security_headers import SecurityHeaders
from service.http.turns import InTurn, RequestTurns
from service.images.workers import begin_pool, observed_devices
from service.observability.access_log import AccessLog
from service.observability.device_metrics import DeviceMetrics
from service.observability.device_readings import DeviceReadings, open_nvml
from service.observability.metrics import Metrics
from service.observability.opening import open_tracing
from service.observability.process_metrics import ProcessMetrics
from service.protocol.json_form import BINARY_HEADER
from service.repository.folder import ModelFolder, default_model
from service.repository.models import Models
from service.repository.opening import Opening
from service.repository.repository import Repository
from service.repository.whole import Whole
from service.settings import Settings, read_settings
from service.ui import page

if TYPE_CHECKING:  # their packages need not be installed
    from service.grpc.server import GrpcServer
    from service.observability.tracing import Tracing

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Service:
    """The application: any ASGI server can run it.

    Attributes:
        context: what it serves from.
        turns: in which requests are begun with; a server that knows when clients leave may tell them.
        others: answers all that has no images.
    """

    context: Context
    turns: RequestTurns
    others: FastAPI
    _outermost: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and stop with the server."""
        await self._outermost(scope, receive, send)

    def running(self) -> AbstractAsyncContextManager[object]:
        """What a server does around all requests: the engine is started, and stopped in the end."""
        return self.others.router.lifespan_context(self.others)


def application() -> Service:
    """Open the model and make the application.

    Raises:
        ArtifactError, EngineError, KeyFileError, SettingsError, ValidationError: something that is set cannot be used.
    """
    settings = read_settings()
    if (settings.frontends or 1) > 1:
        raise SettingsError("--frontends is of python -m service; here it is the server's business")
    folder, manifest = default_model(settings)
    keys = KeyFile(settings.api_keys) if settings.api_keys else None
    tracing = open_tracing(settings)
    return create_app(settings, begin_pool(settings, folder, manifest)(), keys, tracing)


def create_app(
    settings: Settings,
    pool: WorkerPool,
    keys: KeySource | None = None,
    tracing: Tracing | None = None,
    nvml: Callable[[], Any] = open_nvml,
    whole: Whole | None = None,
) -> Service:
    """Make the application.

    Args:
        settings: of the service.
        pool: of workers that take image files, and the model they run; started and closed with the application.
        keys: of the API, which may change meanwhile; None where none is asked for.
        tracing: makes spans of requests, if it is given; closed with the application.
        nvml: opens what tells of GPUs, where they run models.
        whole: the service, where this is one of several processes that are it.
    """
    metrics = Metrics()
    metrics.start_at_zero(["/classify", "/classify/batch"], errors.NOT_THE_CLIENTS_FAULT)
    scheduling = LoopPriority()
    crew = Crew(pool.workers, on_loss=metrics.count_lost_worker)
    prefix = f"{whole.name}-" if whole else ""
    metrics.registry.register(ProcessMetrics(lambda: {prefix + name: pid for name, pid in crew.pids().items()}))
    devices = observed_devices(settings, pool)
    readings = DeviceReadings(devices, nvml) if devices else None
    if readings:
        metrics.registry.register(DeviceMetrics(readings.latest))
    opening = Opening(settings, crew, metrics, BodyBudget(settings.max_pending_bytes), scheduling.note_overload)
    context = opening.context(pool.model)
    metrics.show(context.counts)
    models = Models(context)
    folder = ModelFolder(settings.model_repository) if settings.model_repository else None
    most, drain_s = settings.max_models, settings.drain_seconds
    repository = Repository(folder, models, opening, pool.workshop, crew, most, drain_s, whole)
    metrics.ready.set_function(lambda: repository.problem is None)
    ledger = Ledger(keys, KeyMetrics(metrics.registry)) if keys else None
    access_log = AccessLog() if settings.logs_requests else None
    turns = RequestTurns()

    def observed(app: ASGIApp, routes: Iterable[BaseRoute]) -> ASGIApp:
        return Observation(InTurn(app, turns), RouteNames(routes), metrics, access_log, tracing)

    def around_calls(app: ASGIApp, routes: Iterable[BaseRoute], is_open: Callable[[str], bool]) -> ASGIApp:
        return observed(Access(app, ledger, is_open) if ledger else app, routes)

    grpc = open_grpc(settings, repository, around_calls, ledger)
    others = _others(context, repository, _lifespan(context, repository, scheduling, tracing, grpc, readings))
    describe_api(others, settings, context.manifest.budgets, with_keys=keys is not None)

    # From the inside out.
    app: ASGIApp = Routing(models, HeadAsGet(others))
    if ledger:
        app = Access(app, ledger, admin_path=settings.admin_socket)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                BINARY_HEADER,
                "X-API-Key",
                "X-Compute-Budget",
                "X-Request-ID",
                "X-Request-Timeout-Ms",
            ],
            expose_headers=[BINARY_HEADER, "Retry-After", "X-Request-ID"],
        )
    app = observed(app, [*others.routes, *(route for each in _routers(settings) for route in each.routes)])
    app = ForwardedPrefix(LastAnswer(SecurityHeaders(app), stopping=lambda: crew.leaving))
    return Service(context, turns, others, app)


def _others(context: Context, repository: Repository, lifespan: Lifespan[FastAPI]) -> FastAPI:
    """What answers all that has no images."""
    # The documentation page must work where the internet cannot be reached: its scripts come from this server.
    app = FastAPIOffline(
        redoc_url=None,
        redirect_slashes=False,
        favicon_url="data:,",
        title="ConvNet-AIG serving",
        summary="Image classification that runs only the layers an image needs, and says which.",
        version=version("convnet-aig-serving"),
        lifespan=lifespan,
        # See observability/tracing.py. Off, FastAPI does not look for providers at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # Its files from memory: read from the disk for each answer they would stay open while a client does not read.
    ((assets, files),) = [
        (route, route.app)
        for route in app.routes
        if isinstance(route, Mount) and isinstance(route.app, StaticFiles) and route.app.directory
    ]
    app.router.routes.remove(assets)
    page.show_files(app, Path(files.directory or ""), f"{assets.path}/{{path:path}}")
    app.state.repository = repository
    for each in _routers(context.settings):
        app.include_router(each)
    page.mount(app)
    errors.install(app)
    app.add_middleware(errors.ErrorAnswers)
    return app


def _routers(settings: Settings) -> list[APIRouter]:
    routers = [router, model_routes.router, protocol_router]
    return routers if settings.metrics_port else [*routers, metrics_router]


def _lifespan(
    context: Context,
    repository: Repository,
    scheduling: LoopPriority,
    tracing: Tracing | None,
    grpc: GrpcServer | None,
    readings: DeviceReadings | None,
) -> Lifespan[FastAPI]:
    settings, crew, model = context.settings, context.engine.crew, context.engine.model

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as open_meanwhile:
            if repository.whole:
                await open_meanwhile.enter_async_context(repository.whole.running(repository))
            elif settings.metrics_port:
                registry, host, port = context.metrics.registry, settings.metrics_host, settings.metrics_port
                open_meanwhile.enter_context(metrics_port(registry, host, port))
            if readings:
                open_meanwhile.enter_context(readings.kept_fresh())
            await crew.start()
            _log.info(
                "%s %s runs in %s on %s in %s, %d workers, batches of at most %d",
                model.manifest.name,
                model.manifest.version,
                model.runtime.name,
                model.runtime.device,
                model.runtime.precision,
                len(crew.workers),
                model.tuning.policy.max_batch,
            )
            context.rechecks.begin()
            repository.begin(watched=settings.watch_models == "on")
            if repository.whole:  # others take the connections until this can answer for every model
                await repository.wait_until_begun()
            with scheduling.favouring_workers():
                async with grpc.running() if grpc else nullcontext():
                    yield
            await repository.end()
            for each in repository.models:
                each.rechecks.end()
            await crew.stop(settings.drain_seconds)
            if repository.workshop:
                await run_in_threadpool(repository.workshop.close)
            if tracing:
                await run_in_threadpool(tracing.close)

    return lifespan
