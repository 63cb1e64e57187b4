"""The OpenAPI document, as far as it depends on how the service was started."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.access import is_open
from service.settings import Settings

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
    document = app.openapi()  # FastAPI keeps it, and answers with it from now on
    form = document["paths"]["/classify/batch"]["post"]["requestBody"]["content"]["multipart/form-data"]
    form["schema"]["properties"]["files"]["maxItems"] = settings.max_images
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            responses.setdefault("500", _error("an error that nobody expected"))
            if with_keys and not is_open(path):
                _require_key(path, operation)
    if with_keys:
        document["components"]["securitySchemes"] = _SCHEMES


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
