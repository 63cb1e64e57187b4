"""The web application: routes, errors, metrics, and the engine's start and stop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

from service import errors
from service.access_log import AccessLog
from service.context import Context
from service.direct_route import DirectRouting
from service.engine.engine import Engine
from service.engine.runtime import Runtime
from service.engine.tuning import Tuning
from service.images import ImageDecoder
from service.metrics import Metrics
from service.observation import Observation
from service.routes import images, router
from service.scheduling import favouring_workers
from service.settings import Settings

if TYPE_CHECKING:  # its packages need not be installed
    from service.tracing import Tracing

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


def create_app(settings: Settings, runtime: Runtime, tuning: Tuning, tracing: Tracing | None = None) -> FastAPI:
    """Make the application that serves one model.

    Args:
        settings: of the service.
        runtime: opened for the model; the engine is started and stopped with the application.
        tuning: how batches form.
        tracing: makes spans of requests, if it is given; closed with the application.
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
        if tracing:
            await run_in_threadpool(tracing.close)

    # The documentation page must work where the internet cannot be reached: its scripts come from this server.
    app = FastAPIOffline(
        redoc_url=None,
        favicon_url="data:,",
        title="ConvNet-AIG serving",
        summary="Image classification that runs only the layers an image needs, and says which.",
        version=version("convnet-aig-serving"),
        lifespan=lifespan,
        # See service/tracing.py. Off, FastAPI asks the environment nothing and looks for no providers at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = Context(settings, engine, metrics)
    app.include_router(router)
    app.include_router(images)
    errors.install(app)
    app.add_middleware(DirectRouting, routes=images.routes)
    access_log = AccessLog(runtime.manifest) if settings.logs_requests else None
    app.add_middleware(Observation, metrics=metrics, access_log=access_log, tracing=tracing)
    return app
