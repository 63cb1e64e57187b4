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
from service.direct_route import DirectRoute, DirectRouting
from service.engine.engine import Engine
from service.engine.pool import WorkerPool
from service.memory import BodyMemory
from service.metrics import Metrics
from service.observation import Observation
from service.process_metrics import ProcessMetrics
from service.routes import images, router
from service.scheduling import favouring_workers
from service.settings import Settings
from service.ui import page

if TYPE_CHECKING:  # its packages need not be installed
    from service.tracing import Tracing

# uvicorn's own log, where an operator looks at start.
_log = logging.getLogger("uvicorn.error")


def create_app(settings: Settings, pool: WorkerPool[bytes], tracing: Tracing | None = None) -> FastAPI:
    """Make the application that serves one model.

    Args:
        settings: of the service.
        pool: of workers that take image files; started and closed with the application.
        tracing: makes spans of requests, if it is given; closed with the application.
    """
    metrics = Metrics(pool.manifest)
    engine = Engine(
        pool,
        settings.queue_size,
        on_batch=metrics.batch_size.observe,
        on_loss=metrics.count_lost_worker,
    )
    metrics.registry.register(ProcessMetrics(engine.pids))
    paths = [route.path for route in images.routes if isinstance(route, DirectRoute)]
    metrics.start_at_zero(paths, errors.NOT_THE_CLIENTS_FAULT)
    metrics.queue_capacity.set(engine.queue_capacity)
    metrics.queue_depth.set_function(lambda: engine.queue_depth)
    metrics.ready.set_function(lambda: engine.ready)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
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
    access_log = AccessLog(pool.manifest) if settings.logs_requests else None
    app.state.context = Context(settings, engine, metrics, access_log, BodyMemory(settings.max_pending_bytes))
    app.include_router(router)
    app.include_router(images)
    page.mount(app)
    errors.install(app)
    app.add_middleware(DirectRouting, routes=images.routes)
    app.add_middleware(Observation, metrics=metrics, access_log=access_log, tracing=tracing)
    return app
