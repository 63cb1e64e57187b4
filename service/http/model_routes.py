"""The routes that tell of models, and load and unload them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from service.classify.context import Context
from service.classify.schemas import Choices, EngineDescription, Limits, ListedModel, ModelDescription, ModelList
from service.errors import ErrorResponse
from service.http.access import require_admin
from service.http.image_routes import Name, Version
from service.repository.repository import Repository, repository

router = APIRouter(tags=["models"])

Served = Annotated[Repository, Depends(repository)]

_OF_A_VERSION = "/models/{name}/versions/{version}"
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorResponse, "description": "no such model or version"},
    503: {"model": ErrorResponse, "description": "the model is being loaded"},
}


@router.get("/model", operation_id="get_default_model", summary="Describe the default model")
async def model(served: Served) -> ModelDescription:
    """The model that answers where none is named, how it is run, and what it accepts."""
    return _described(served.models.default)


@router.get("/models", operation_id="list_models", summary="List the models")
async def list_models(served: Served) -> ModelList:
    """Every version of every model that is served, is being loaded, or could not be loaded."""
    models = served.models
    listed = []
    for (name, version), told in sorted(models.states.items()):
        context = models.served(name, version)
        listed.append(
            ListedModel(
                name=name,
                version=version,
                state=told.state,
                reason=told.reason or None,
                default=context is models.default,
                ready=context is not None and context.engine.ready,
                labels=len(context.manifest.labels) if context else None,
                input_size=context.manifest.input_size if context else None,
            )
        )
    return ModelList(models=listed)


@router.get("/models/{name}", operation_id="get_model", summary="Describe a model", responses=_UNKNOWN)
async def model_named(name: Name, served: Served) -> ModelDescription:
    """The newest version of a model."""
    return _described(served.models.find(name))


@router.get(
    f"{_OF_A_VERSION}",
    operation_id="get_model_version",
    summary="Describe a version",
    responses=_UNKNOWN,
)
async def model_version(name: Name, version: Version, served: Served) -> ModelDescription:
    """One version of a model."""
    return _described(served.models.find(name, version))


_CHANGE: dict[int | str, dict[str, Any]] = {
    403: {"model": ErrorResponse, "description": "neither a key with `admin = true` nor the Unix socket"},
    404: _UNKNOWN[404],
    409: {"model": ErrorResponse, "description": "there is no model repository, or the model is the default one"},
    422: {"model": ErrorResponse, "description": "the model cannot be served"},
}


@router.post("/models/{name}/load", operation_id="load_model", summary="Load a model", responses=_CHANGE)
async def load_model(name: Name, served: Served, request: Request) -> ModelList:
    """Serve the newest version in the repository, or open it anew; answered when it answers."""
    require_admin(request.scope, served.opening.settings.admin_socket)
    await served.load(name)
    return await list_models(served)


@router.post(f"{_OF_A_VERSION}/load", operation_id="load_version", summary="Load a version", responses=_CHANGE)
async def load_version(name: Name, version: Version, served: Served, request: Request) -> ModelList:
    """Serve one version, or open it anew; answered when it answers."""
    require_admin(request.scope, served.opening.settings.admin_socket)
    await served.load(name, version)
    return await list_models(served)


@router.post("/models/{name}/unload", operation_id="unload_model", summary="Unload a model", responses=_CHANGE)
async def unload_model(name: Name, served: Served, request: Request) -> ModelList:
    """Serve no version of it any more; answered when what was in progress is done."""
    require_admin(request.scope, served.opening.settings.admin_socket)
    await served.unload(name)
    return await list_models(served)


@router.post(
    f"{_OF_A_VERSION}/unload",
    operation_id="unload_version",
    summary="Unload a version",
    responses=_CHANGE,
)
async def unload_version(name: Name, version: Version, served: Served, request: Request) -> ModelList:
    """Serve one version no more; answered when what was in progress is done."""
    require_admin(request.scope, served.opening.settings.admin_socket)
    await served.unload(name, version)
    return await list_models(served)


def _described(served: Context) -> ModelDescription:
    manifest, settings, runtime = served.manifest, served.settings, served.engine.model.runtime
    tuning = served.engine.model.tuning
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
