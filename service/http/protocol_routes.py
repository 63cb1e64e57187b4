"""The routes of the Open Inference Protocol that tell of the server and its models.

The OpenAPI document leaves them out: the protocol has one of its own, which clients are made from.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeVar

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.classify.deadlines import upload_timeout
from service.errors import ApiError
from service.http.access import require_admin
from service.protocol.metadata import index, model_metadata, server_metadata
from service.protocol.tensors import invalid
from service.repository.repository import Repository, repository

protocol_router = APIRouter(prefix="/v2", include_in_schema=False)

Served = Annotated[Repository, Depends(repository)]
_MOST_BODY_BYTES, _LONGEST_BODY_S = 4096, 10.0


class _IndexRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    ready: bool = False


class _ChangeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    parameters: _Parameters = Field(default_factory=lambda: _Parameters())


class _Parameters(BaseModel):
    """What Triton's client always sends; nothing here depends on another model."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    unload_dependents: bool = False


_Asked = TypeVar("_Asked", bound=BaseModel)


@protocol_router.get("")
async def server() -> Response:
    """What the server is."""
    return _json(server_metadata())


@protocol_router.get("/health/live")
async def live() -> Response:
    """Whether the process answers at all."""
    return _json({"live": True})


@protocol_router.get("/health/ready")
async def ready(served: Served) -> Response:
    """Whether images are taken, see `/readyz`."""
    _require_ready(served.problem)
    return _json({"ready": True})


@protocol_router.get("/models/{name}")
@protocol_router.get("/models/{name}/versions/{version}")
async def model(served: Served, request: Request) -> Response:
    """What a model takes and gives."""
    return _json(model_metadata(served.models, *_named(request)))


@protocol_router.get("/models/{name}/ready")
@protocol_router.get("/models/{name}/versions/{version}/ready")
async def model_ready(served: Served, request: Request) -> Response:
    """Whether a model takes images."""
    name, version = _named(request)
    _require_ready(served.models.find(name, version).engine.problem)
    return _json({"name": name, "ready": True})


@protocol_router.post("/repository/index")
async def repository_index(served: Served, request: Request) -> Response:
    """Every version of every model that is known; with `{"ready": true}` those that take images."""
    asked = await _asked(request, _IndexRequest)
    return _json(index(served.models, only_ready=asked.ready))


@protocol_router.post("/repository/models/{name}/load")
async def load(name: str, served: Served, request: Request) -> Response:
    """Serve the newest version of a model in the repository, or open it anew; answered when it answers."""
    require_admin(request.scope, served.opening.settings.admin_socket)
    await _asked(request, _ChangeRequest)
    await served.load(name)
    return _json({})


@protocol_router.post("/repository/models/{name}/unload")
async def unload(name: str, served: Served, request: Request) -> Response:
    """Serve no version of a model any more."""
    require_admin(request.scope, served.opening.settings.admin_socket)
    await _asked(request, _ChangeRequest)
    await served.unload(name)
    return _json({})


async def _asked(request: Request, kind: type[_Asked]) -> _Asked:
    """What the body of a request says; nothing is as good as an empty object."""
    body = await _small_body(request)
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise invalid(f"the body: {error.errors(include_url=False, include_input=False)[0]['msg']}") from error


async def _small_body(request: Request) -> bytes:
    """The body of a request that has hardly any.

    Raises:
        ApiError: it is long, or comes too slowly.
    """
    body = b""
    try:
        async with asyncio.timeout(_LONGEST_BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > _MOST_BODY_BYTES:
                    raise ApiError(413, "json_too_large", f"the body may have at most {_MOST_BODY_BYTES} bytes")
    except TimeoutError as error:
        raise upload_timeout() from error
    return body


def _named(request: Request) -> tuple[str, str | None]:
    """The model and the version in the path."""
    return request.path_params["name"], request.path_params.get("version")


def _require_ready(problem: str | None) -> None:
    if problem is not None:
        raise ApiError(503, "not_ready", problem)


def _json(told: object) -> Response:
    return Response(orjson.dumps(told), media_type="application/json")
