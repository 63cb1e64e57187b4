"""The routes that tell of the service and its model."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from service.access.accounts import Account
from service.classify.context import Context, context
from service.classify.schemas import (
    Choices,
    EngineDescription,
    Limits,
    ListedModel,
    ModelDescription,
    ModelList,
    Status,
)
from service.errors import ApiError, ErrorResponse
from service.http.image_routes import Name, Version
from service.observability.metrics import CONTENT_TYPE
from service.repository.models import Models, models

router = APIRouter()
metrics_router = APIRouter()

Served = Annotated[Context, Depends(context)]
All = Annotated[Models, Depends(models)]

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ErrorResponse, "description": "no such model or version"}}


@router.get("/model", tags=["models"], operation_id="get_default_model", summary="Describe the default model")
async def model(served: Served) -> ModelDescription:
    """The model that answers where none is named, how it is run, and what it accepts."""
    return _described(served)


@router.get("/models", tags=["models"], operation_id="list_models", summary="List the models")
async def list_models(served: All) -> ModelList:
    """Every version of every model that is served."""
    listed = [
        ListedModel(
            name=each.manifest.name,
            version=each.manifest.version,
            default=each is served.default,
            ready=each.engine.ready,
            labels=len(each.manifest.labels),
            input_size=each.manifest.input_size,
        )
        for each in served
    ]
    return ModelList(models=listed)


@router.get("/models/{name}", tags=["models"], operation_id="get_model", summary="Describe a model", responses=_UNKNOWN)
async def model_named(name: Name, served: All) -> ModelDescription:
    """The newest version of a model."""
    return _described(served.find(name))


@router.get(
    "/models/{name}/versions/{version}",
    tags=["models"],
    operation_id="get_model_version",
    summary="Describe a version",
    responses=_UNKNOWN,
)
async def model_version(name: Name, version: Version, served: All) -> ModelDescription:
    """One version of a model."""
    return _described(served.find(name, version))


def _described(served: Context) -> ModelDescription:
    manifest, settings, runtime = served.manifest, served.settings, served.engine.pool.runtime
    tuning = served.engine.pool.tuning
    fields = set(ModelDescription.model_fields) & set(type(manifest).model_fields)
    described = manifest.model_dump(include=fields - {"budgets"})
    engine = EngineDescription(
        runtime=runtime.name,
        device=runtime.device,
        precision=runtime.precision,
        workers=tuning.policy.workers,
        max_batch=tuning.policy.max_batch,
        max_wait_ms=tuning.policy.max_wait_ms,
        queue_size=served.engine.queue_capacity,
        chosen=Choices(
            runtime="measured" if runtime.candidates else "set",
            workers=tuning.workers,
            max_batch=tuning.max_batch,
            max_wait_ms=tuning.max_wait_ms,
        ),
        candidates=list(runtime.candidates),
    )
    limits = Limits(
        formats=list(settings.formats),
        max_bytes=settings.max_bytes,
        max_pixels=settings.max_pixels,
        max_images=settings.max_images,
        deadline_ms=settings.deadline_ms,
    )
    budgets = list(manifest.budgets.rows) if manifest.budgets else []
    return ModelDescription(**described, budgets=budgets, engine=engine, limits=limits)


@router.get(
    "/healthz",
    tags=["operations"],
    operation_id="get_health",
    summary="Is the process alive?",
    response_model_exclude_none=True,
)
async def healthz() -> Status:
    """Whether the process answers at all."""
    return Status(status="alive")


@router.get(
    "/readyz",
    tags=["operations"],
    operation_id="get_readiness",
    summary="Is the service ready for images?",
    response_model=Status,
    responses={503: {"model": Status}},
    response_model_exclude_none=True,
)
async def readyz(served: Served, response: Response) -> Status:
    """Whether images are taken and can be expected to be answered.

    Answers 503 while the service starts or stops, when no worker is alive, when the last inferences failed, or when
    images have been refused for a while.
    """
    problem = served.engine.problem
    if problem is None:
        return Status(status="ready")
    response.status_code = 503
    return Status(status="not ready", reason=problem)


@metrics_router.get(
    "/metrics",
    tags=["operations"],
    operation_id="get_metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, served: Served) -> Response:
    """Metrics in Prometheus's text format."""
    account: Account | None = request.scope["state"].get("account")
    if account and not account.key.metrics:  # asked here, where it is certain which route this is
        raise ApiError(403, "forbidden", "this API key does not open /metrics")
    return Response(served.metrics.render(), media_type=CONTENT_TYPE)
