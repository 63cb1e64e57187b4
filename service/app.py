"""The web application: routes, errors, metrics, and the engine's start and stop."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.access import Access
from service.context import Context
from service.direct_route import DirectRouting
from service.engine.engine import Engine
from service.engine.pool import WorkerPool
from service.key_metrics import KeyMetrics
from service.keys import Keyring
from service.metrics import Metrics
from service.metrics_port import metrics_port
from service.openapi import describe_api
from service.process_metrics import ProcessMetrics
from service.routes import images, metrics_router, router
from service.scheduling import favouring_workers
from service.security_headers import SecurityHeaders
from service.settings import Settings

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


def create_app(settings: Settings, pool: WorkerPool[bytes], keyring: Keyring | None = None) -> FastAPI:
    """Make the application that serves one model.

    Args:
        settings: of the service.
        pool: of workers that take image files; started and closed with the application.
        keyring: of the API keys there are; None where none is asked for.
    """
    metrics = Metrics(pool.manifest)
    engine = Engine(
        pool,
        settings.queue_size,
        on_batch=metrics.batch_size.observe,
        on_loss=metrics.count_lost_worker,
    )
    metrics.registry.register(ProcessMetrics(engine.pids))
    metrics.queue_depth.set_function(lambda: engine.queue_depth)
    metrics.ready.set_function(lambda: engine.ready)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as open_meanwhile:
            if settings.metrics_port:
                registry, host, port = metrics.registry, settings.metrics_host, settings.metrics_port
                open_meanwhile.enter_context(metrics_port(registry, host, port))
            await run_in_threadpool(engine.start)
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
            with favouring_workers():
                yield
            await run_in_threadpool(engine.stop, settings.drain_seconds)

    # The documentation page must work where the internet cannot be reached: its scripts come from this server.
    app = FastAPIOffline(
        redoc_url=None,
        redirect_slashes=False,
        favicon_url="data:,",
        title="ConvNet-AIG serving",
        summary="Image classification that runs only the layers an image needs, and says which.",
        version=version("convnet-aig-serving"),
        lifespan=lifespan,
    )
    app.state.context = Context(settings, engine, metrics)
    app.include_router(router)
    app.include_router(images)
    if not settings.metrics_port:
        app.include_router(metrics_router)
    errors.install(app)
    describe_api(app, settings, with_keys=keyring is not None)
    app.add_middleware(DirectRouting, routes=images.routes)
    if keyring:
        key_metrics = KeyMetrics(metrics.registry, keyring, pool.manifest.total_macs)
        app.add_middleware(Access, keyring=keyring, metrics=key_metrics)
    app.add_middleware(RequestCounter, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    app.add_middleware(SecurityHeaders)
    return app


class RequestCounter:
    """Counts every request by route and outcome, and measures it, whatever became of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        outcome = "internal_error"
        try:
            await self._app(scope, receive, send_noting_status)
            outcome = "ok" if status < 400 else scope.get("state", {}).get("outcome", f"http_{status}")
        finally:
            self._metrics.count_request(_route(scope), outcome, time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """The route's path; unknown paths share one name, so that a scanner cannot fill the metrics."""
    route = scope.get("route")
    return getattr(route, "path", "unmatched")
