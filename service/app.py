"""The web application: routes, errors, metrics, and the engine's start and stop."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.context import Context
from service.direct_route import DirectRouting
from service.engine.engine import Engine
from service.engine.runtime import Runtime
from service.engine.tuning import Tuning
from service.images import ImageDecoder
from service.metrics import Metrics
from service.routes import images, router
from service.scheduling import favouring_workers
from service.settings import Settings
from service.ui import page

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


def create_app(settings: Settings, runtime: Runtime, tuning: Tuning) -> FastAPI:
    """Make the application that serves one model.

    Args:
        settings: of the service.
        runtime: opened for the model; the engine is started and stopped with the application.
        tuning: how batches form.
    """
    metrics = Metrics(runtime.manifest)
    decoder = ImageDecoder(runtime.manifest.preprocessing, settings.max_bytes, settings.max_pixels)
    engine = Engine(
        runtime,
        decoder.decode,
        tuning,
        settings.queue_size,
        on_batch=metrics.batch_size.observe,
    )
    metrics.queue_depth.set_function(lambda: engine.queue_depth)
    metrics.ready.set_function(lambda: engine.ready)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(engine.start)
        _log.info(
            "%s %s runs in %s on %s in %s, %d threads, batches of at most %d",
            runtime.manifest.name,
            runtime.manifest.version,
            runtime.name,
            runtime.device,
            runtime.precision,
            tuning.policy.workers,
            tuning.policy.max_batch,
        )
        with favouring_workers():
            yield
        await run_in_threadpool(engine.stop, settings.drain_seconds)

    # The documentation page must work where the internet cannot be reached: its scripts come from this server.
    app = FastAPIOffline(
        redoc_url=None,
        favicon_url="data:,",
        title="ConvNet-AIG serving",
        summary="Image classification that runs only the layers an image needs, and says which.",
        version=version("convnet-aig-serving"),
        lifespan=lifespan,
    )
    app.state.context = Context(settings, engine, metrics)
    app.include_router(router)
    app.include_router(images)
    page.mount(app)
    errors.install(app)
    app.add_middleware(DirectRouting, routes=images.routes)
    app.add_middleware(RequestCounter, metrics=metrics)
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
