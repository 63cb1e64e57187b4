"""The OpenAPI document: FastAPI makes that of its own routes; those that take images are declared here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.openapi.utils import get_openapi

from service.classify.deadlines import HEADER
from service.classify.schemas import BatchClassification, Classification, ClassifyParameters
from service.errors import ErrorResponse
from service.http.access import is_open
from service.settings import Settings

_ID_HEADER = {"X-Request-ID": {"description": "of this request, in the server's log too", "schema": {"type": "string"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description, "headers": _ID_HEADER}
    for status, description in {
        400: "empty or malformed body",
        408: "the body did not arrive within the deadline",
        413: "too many bytes or pixels",
        415: "not an image, an image of a kind that is not read, a wrong content type, or a content encoding",
        422: "damaged image, or unknown or invalid parameters or fields",
        429: "the service is overloaded, or this API key has reached a limit; Retry-After says when to come back",
        500: "the model could not be run on this image",
        503: "the service is stopping, or has no process that could run the image",
        504: "not answered within the deadline",
    }.items()
}
_ERRORS[429]["headers"] = {
    **_ID_HEADER,
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds to wait"},
}
_RESPONSES = {200: {"headers": _ID_HEADER}, **_ERRORS}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a multipart body with one field."""
    properties = {field: schema}
    return {
        "schema": {"type": "object", "required": [field], "properties": properties, "additionalProperties": False},
    }


_TIMEOUT = {
    "name": HEADER,
    "in": "header",
    "description": "the longest time an answer is worth waiting for, in ms; the server's own limit holds as well",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_FILE = {"type": "string", "format": "binary"}
_IMAGE_BODY = {
    "parameters": [_TIMEOUT],
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _form("file", _FILE), "image/*": {"schema": _FILE}},
    },
}
_IMAGES_BODY = {
    "parameters": [_TIMEOUT],
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": _form("files", {"type": "array", "items": _FILE, "minItems": 1})},
    },
}

# Never called: `service.classify_endpoint` answers. FastAPI makes of it what is told of parameters and answers.
_declared = APIRouter(tags=["images"])


@_declared.post(
    "/classify",
    summary="Classify one image",
    response_model=Classification,
    responses=_RESPONSES,
    openapi_extra=_IMAGE_BODY,
)
def _classify(parameters: Annotated[ClassifyParameters, Query()]) -> None:
    """Classify one image, sent as the multipart field `file` or as the raw body."""


@_declared.post(
    "/classify/batch",
    summary="Classify several images",
    response_model=BatchClassification,
    responses=_RESPONSES,
    openapi_extra=_IMAGES_BODY,
)
def _classify_batch(parameters: Annotated[ClassifyParameters, Query()]) -> None:
    """Classify several images, sent as multipart fields named `files`; an answer or an error for each, in order."""


_REFERENCE = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_CHALLENGE = {"schema": {"type": "string"}, "description": "Bearer"}
_RETRY_AFTER = {"schema": {"type": "integer", "minimum": 1}, "description": "seconds to wait"}


def describe_api(app: FastAPI, settings: Settings, with_keys: bool) -> None:
    """Make the app's document tell the limits it was started with, and what answers API keys bring.

    Args:
        app: with all its routes.
        settings: of the service.
        with_keys: whether it asks for API keys.
    """
    routes = [*_declared.routes, *app.routes]
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=routes)
    media_types = ", ".join(f"image/{name.lower()}" for name in settings.formats)
    for path, field in (("/classify", "file"), ("/classify/batch", "files")):
        form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
        form["encoding"] = {field: {"contentType": media_types}}
    form["schema"]["properties"]["files"]["maxItems"] = settings.max_images
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            responses.setdefault("500", _error("unexpected error"))
            if with_keys and not is_open(path):
                _require_key(path, operation)
    if with_keys:
        document["components"]["securitySchemes"] = _SCHEMES
    app.openapi = lambda: document  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _require_key(path: str, operation: dict[str, Any]) -> None:
    operation["security"] = [{name: []} for name in _SCHEMES]
    responses = operation["responses"]
    responses["401"] = _error("no API key, or one that does not exist") | {"headers": {"WWW-Authenticate": _CHALLENGE}}
    responses.setdefault(
        "429", _error("the key has reached one of its limits") | {"headers": {"Retry-After": _RETRY_AFTER}}
    )
    if path == "/metrics":
        responses["403"] = _error("the key is not one for metrics")


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": _REFERENCE}
