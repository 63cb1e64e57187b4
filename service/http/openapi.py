"""The OpenAPI document: FastAPI makes that of its own routes; those that take images are declared here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.openapi.utils import get_openapi

from artifact.budgets import BudgetCurve
from artifact.manifest import Block
from artifact.preprocessing import Preprocessing
from service.classify.budgets import HEADER as BUDGET_HEADER
from service.classify.deadlines import HEADER
from service.classify.schemas import BatchClassification, BatchItem, Classification, ClassifyParameters
from service.engine.runtimes.base import Candidate
from service.errors import ErrorResponse
from service.http.access import is_open
from service.http.image_routes import Name, Version
from service.settings import Settings

_OF_BOTH = {
    400: "empty or malformed body",
    408: "the body did not arrive within the deadline",
    429: "the service is overloaded, or this API key has reached a limit; Retry-After says when to come back",
    503: "the service is stopping, has no process that could run an image, or has as many connections as it takes",
    504: "not answered within the deadline",
}
_OF_ONE = _OF_BOTH | {
    413: "too many bytes or pixels",
    415: "not an image, an image of a kind that is not read, a wrong content type, or a content encoding",
    422: "damaged or too costly image, unknown or invalid parameters or fields, or a budget that cannot be had",
    500: "the model could not be run on this image",
}
# What goes wrong with one of its images is told in its answer.
_OF_SEVERAL = _OF_BOTH | {
    413: "too many bytes",
    415: "a wrong content type, or a content encoding",
    422: "too many images, unknown or invalid parameters or fields, or a budget that cannot be had",
}
_OF_EVERY_ROUTE = {
    431: "too many headers",
    500: "unexpected error",
    503: "the service is stopping, or has as many connections as it takes",
}


def _responses(described: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse, "description": text} for status, text in described.items()}


_TIMEOUT = {
    "name": HEADER,
    "in": "header",
    "description": "the longest time an answer is worth waiting for, in ms; the server's own limit holds as well",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_BUDGET: dict[str, Any] = {
    "name": BUDGET_HEADER,
    "in": "header",
    "description": "the same as the parameter `budget`, which counts where both are given",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
}
_OF_A_FILE = {
    "type": "array",
    "items": _BUDGET["schema"],
    "description": "the same as the parameter `budget`, which it goes before: one for all files, or one for each",
}
_FILE = {"type": "string", "format": "binary"}
_IMAGE_FORM, _IMAGES_FORM = ({"$ref": f"#/components/schemas/{name}"} for name in ("ImageForm", "ImagesForm"))
_IN_JSON = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "string", "contentEncoding": "base64", "description": "the image file"}},
    "additionalProperties": False,
}
_IMAGE_BODY = {
    "parameters": [_TIMEOUT, _BUDGET],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _IMAGE_FORM},
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
            "application/json": {"schema": _IN_JSON},
        },
    },
}
_IMAGES_BODY = {
    "parameters": [_TIMEOUT, _BUDGET],
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _IMAGES_FORM}}},
}

_UNKNOWN_MODEL = {404: "no such model, or no such version of it"}

# Never called: `service.http.endpoint` answers. FastAPI makes of them what is told of parameters and answers.


def _classify(parameters: Annotated[ClassifyParameters, Query()]) -> None:
    """Classify one image, sent as the multipart field `file`, as the raw body, or in base64 as JSON."""


def _classify_batch(parameters: Annotated[ClassifyParameters, Query()]) -> None:
    """Classify several images, sent as multipart fields named `files`; an answer or an error for each, in order."""


def _by_model(name: Name, parameters: Annotated[ClassifyParameters, Query()]) -> None:
    """The same by the newest version of a model."""


def _by_version(name: Name, version: Version, parameters: Annotated[ClassifyParameters, Query()]) -> None:
    """The same by one version of a model."""


_declared = APIRouter(tags=["images"])
_FIELDS: dict[str, str] = {}
"""By path, the name of the form's field that has the images."""


def _declare(of_model: str, by: str, one: Any, several: Any, known: dict[int, str]) -> None:
    """Declare the two routes that take images below a path.

    Args:
        of_model: the path.
        by: which model answers, in a word; empty for the default model.
        one, several: FastAPI takes the parameters and the description from these.
        known: errors that only these routes have, by status.
    """
    id_, words = (f"_by_{by}", f" by a {by}") if by else ("", "")
    _FIELDS.update({f"{of_model}/classify": "file", f"{of_model}/classify/batch": "files"})
    _declared.add_api_route(
        f"{of_model}/classify",
        one,
        methods=["POST"],
        operation_id=f"classify{id_}",
        summary=f"Classify one image{words}",
        response_model=Classification,
        responses=_responses(_OF_ONE | known),
        openapi_extra=_IMAGE_BODY,
    )
    _declared.add_api_route(
        f"{of_model}/classify/batch",
        several,
        methods=["POST"],
        operation_id=f"classify_batch{id_}",
        summary=f"Classify several images{words}",
        response_model=BatchClassification,
        responses=_responses(_OF_SEVERAL | known),
        openapi_extra=_IMAGES_BODY,
    )


_declare("", "", _classify, _classify_batch, {})
_declare("/models/{name}", "model", _by_model, _by_model, _UNKNOWN_MODEL)
_declare("/models/{name}/versions/{version}", "version", _by_version, _by_version, _UNKNOWN_MODEL)


_WHOLE = (BatchItem, Block, Candidate, Classification, Preprocessing)
"""Answers that have default values where they are made, and are written with all of their fields."""
_ERROR = {"$ref": "#/components/schemas/ErrorResponse"}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_ID = {"X-Request-ID": {"description": "of this request, in the server's log too", "schema": {"type": "string"}}}
_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}}
# By status, those that an answer may have besides.
_HEADERS = {
    "401": {"WWW-Authenticate": {"description": "Bearer", "schema": {"type": "string"}}},
    "415": {"Accept-Encoding": {"description": "identity, to a content encoding", "schema": {"type": "string"}}},
    "429": _RETRY_AFTER,
    "503": _RETRY_AFTER,
}


def describe_api(app: FastAPI, settings: Settings, budgets: BudgetCurve | None, with_keys: bool) -> None:
    """Make the app's document tell the limits it was started with, and what answers API keys bring.

    Args:
        app: with all its routes.
        settings: of the service.
        budgets: of the model.
        with_keys: whether it asks for API keys.
    """
    routes = [*_declared.routes, *app.routes]
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=routes)
    media_types = ", ".join(f"image/{name.lower()}" for name in settings.formats)
    for path, field in _FIELDS.items():
        form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
        form["encoding"] = {field: {"contentType": media_types}}
        _limit_budgets(document["paths"][path]["post"], budgets)
    schemas = document["components"]["schemas"]
    for kind in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which nothing here answers
        schemas.pop(kind, None)
    _open_answers(schemas)
    schemas |= _forms(settings.max_images, budgets)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path.startswith("/models/") and "get" in operations:
                del operation["responses"]["422"]  # every name is valid
            _add_answers(operation["responses"], _OF_EVERY_ROUTE)
            if with_keys and not is_open(path):
                _require_key(path, operation)
            for status, response in operation["responses"].items():
                response["headers"] = _ID | _HEADERS.get(status, {})
    if with_keys:
        document["components"]["securitySchemes"] = _SCHEMES
    app.openapi = lambda: document  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _open_answers(schemas: dict[str, Any]) -> None:
    """Tell which fields an answer always has, and that it may come to have more."""
    for kind in _WHOLE:
        schemas[kind.__name__]["required"] = [*schemas[kind.__name__]["properties"]]
    for schema in schemas.values():
        schema.pop("additionalProperties", None)  # of what is read from manifests, which may have no more


def _forms(max_images: int, budgets: BudgetCurve | None) -> dict[str, Any]:
    """The schemas of the forms with images."""
    files = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": max_images}
    of_budget = {} if budgets is None else {"budget": _OF_A_FILE | {"items": _budget_schema(budgets)}}
    return {
        name: {
            "type": "object",
            "description": description,
            "properties": {field: schema} | of_budget,
            "required": [field],
            "additionalProperties": False,
        }
        for name, description, field, schema in (
            ("ImageForm", "A form with one image.", "file", _FILE),
            ("ImagesForm", "A form with several images.", "files", files),
        )
    }


def _limit_budgets(operation: dict[str, Any], budgets: BudgetCurve | None) -> None:
    """Tell the smallest budget of the model, or nothing of budgets where it has none."""
    of_budgets = {"budget", "max_latency_ms", BUDGET_HEADER}
    if budgets is None:
        operation["parameters"] = [each for each in operation["parameters"] if each["name"] not in of_budgets]
        return
    for each in operation["parameters"]:
        if each["name"] in {"budget", BUDGET_HEADER}:
            each["schema"] = _budget_schema(budgets)
        elif each["name"] == "max_latency_ms":
            each["schema"] = {"type": "number", "exclusiveMinimum": 0}  # a query cannot say null


def _budget_schema(budgets: BudgetCurve) -> dict[str, Any]:
    return {"type": "number", "minimum": budgets.least, "maximum": 1}


def _require_key(path: str, operation: dict[str, Any]) -> None:
    operation["security"] = [{name: []} for name in _SCHEMES]
    answers = {401: "no API key, or one that does not exist", 429: "the key has reached one of its limits"}
    if path == "/metrics":
        answers[403] = "the key is not one for metrics"
    elif path in _FIELDS:
        answers[403] = "the key is for other models"
    _add_answers(operation["responses"], answers)


def _add_answers(responses: dict[str, Any], described: dict[int, str]) -> None:
    """Add errors; where a status is a route's own, it may mean this as well."""
    for status, text in described.items():
        response = responses.setdefault(str(status), {"description": text, "content": {}})
        content = response["content"].setdefault("application/json", {"schema": _ERROR})
        if content["schema"] != _ERROR:
            content["schema"] = {"anyOf": [content["schema"], _ERROR]}
