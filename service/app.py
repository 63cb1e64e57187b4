"""The web application: routes, errors, metrics, and the engine's start and stop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from service import errors
from service.access import Access
from service.access_log import AccessLog
from service.answer_writer import AnswerWriter
from service.context import Context
from service.direct_route import DirectRoute, DirectRouting
from service.engine.engine import Engine
from service.engine.pool import WorkerPool
from service.head_requests import HeadAsGet
from service.key_metrics import KeyMetrics
from service.keys import Keyring
from service.memory import BodyMemory
from service.metrics import Metrics
from service.metrics_port import metrics_port
from service.observation import Observation
from service.openapi import describe_api
from service.process_metrics import ProcessMetrics
from service.routes import images, metrics_router, router
from service.scheduling import LoopScheduling
from service.security_headers import SecurityHeaders
from service.settings import Settings
from service.ui import page

if TYPE_CHECKING:  # its packages need not be installed
    from service.tracing import Tracing

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


def create_app(
    settings: Settings, pool: WorkerPool[bytes], keyring: Keyring | None = None, tracing: Tracing | None = None
) -> FastAPI:
    """Make the application that serves one model.

    Args:
        settings: of the service.
        pool: of workers that take image files; started and closed with the application.
        keyring: of the API keys there are; None where none is asked for.
        tracing: makes spans of requests, if it is given; closed with the application.
    """
    metrics = Metrics(pool.manifest)
    scheduling = LoopScheduling()
    engine = Engine(
        pool,
        settings.queue_size,
        settings.deadline_ms / 1000,
        on_batch=metrics.batch_size.observe,
        on_loss=metrics.count_lost_worker,
        on_overload=scheduling.note_overload,
    )
    metrics.registry.register(ProcessMetrics(engine.pids))
    paths = [route.path for route in images.routes if isinstance(route, DirectRoute)]
    metrics.start_at_zero(paths, errors.NOT_THE_CLIENTS_FAULT)
    metrics.queue_capacity.set(engine.queue_capacity)
    metrics.queue_depth.set_function(lambda: engine.queue_depth)
    metrics.ready.set_function(lambda: engine.ready)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as open_meanwhile:
            if settings.metrics_port:
                registry, host, port = metrics.registry, settings.metrics_host, settings.metrics_port
                open_meanwhile.enter_context(metrics_port(registry, host, port))
            await engine.start()
            _log.info(
                "%s %s runs in %s on %s in %s, %d workers, batches of at most %d",
                pool.manifest.name,
                pool.manifest.version,
                pool.runtime.name,
                pool.runtime.device,
                pool.runtime.precision,
                pool.tuning.policy.workers,
                pool.tuning.policy.max_batch,
            )
            with scheduling.favouring_workers():
                yield
            await engine.stop(settings.drain_seconds)
            if tracing:
                await run_in_threadpool(tracing.close)

    # The documentation page must work where the internet cannot be reached: its scripts come from this server.
    app = FastAPIOffline(
        redoc_url=None,
        redirect_slashes=False,
        favicon_url="data:,",
        title="ConvNet-AIG serving",
        summary="Image classification that runs only the layers an image needs, and says which.",
        version=version("convnet-aig-serving"),
        lifespan=lifespan,
        # See service/tracing.py. Off, FastAPI asks the environment nothing and looks for no providers at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    access_log = AccessLog(pool.manifest) if settings.logs_requests else None
    app.state.context = Context(
        settings,
        engine,
        metrics,
        access_log,
        BodyMemory(settings.max_pending_bytes),
        AnswerWriter(pool.manifest),
        direct=keyring is None and tracing is None,
    )
    app.include_router(router)
    app.include_router(images)
    page.mount(app)
    if not settings.metrics_port:
        app.include_router(metrics_router)
    errors.install(app)
    describe_api(app, settings, with_keys=keyring is not None)
    app.add_middleware(HeadAsGet)
    app.add_middleware(DirectRouting, routes=images.routes)
    if keyring:
        key_metrics = KeyMetrics(metrics.registry, keyring, pool.manifest.total_macs)
        app.add_middleware(Access, keyring=keyring, metrics=key_metrics)
    app.add_middleware(Observation, metrics=metrics, access_log=access_log, tracing=tracing)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    app.add_middleware(SecurityHeaders)
    return app
