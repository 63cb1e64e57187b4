"""The HTTP reference: the OpenAPI document of a service with API keys, told in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from fastapi import FastAPI

from artifact.manifest import read_manifest
from docs.hooks.repository import ROOT
from docs.hooks.tables import sentence, table
from service.http import model_routes
from service.http.openapi import describe_api
from service.http.routes import metrics_router, router
from service.settings import Settings

_ERROR = "ErrorResponse"
_ATTRIBUTE = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.MULTILINE)


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    app = FastAPI()
    for each in (router, model_routes.router, metrics_router):
        app.include_router(each)
    describe_api(app, Settings(), read_manifest(ROOT / Settings().model).budgets, with_keys=True)
    return app.openapi()


def routes() -> str:
    """A section for every route, and one for the objects that they answer with."""
    paths, schemas = document()["paths"], document()["components"]["schemas"]
    parts = [
        part
        for path, operations in paths.items()
        for method, operation in operations.items()
        for part in _route(f"{method.upper()} {path}", operation)
    ]
    objects = (_schema(name, schema) for name, schema in schemas.items() if "enum" not in schema)
    return "\n\n".join([*parts, "## Objects", *objects])


def _route(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{title}` {{ #{_anchor(title)} }}"
    yield sentence(operation.get("description") or operation["summary"])
    if operation.get("security"):
        yield "Needs an API key where the service was started with `--api-keys`."
    if parameters := operation.get("parameters"):
        yield table(["parameter", "in", "type", "default", "meaning"], map(_parameter, parameters))
    if body := operation.get("requestBody"):
        yield table(["body", "content"], ([f"`{name}`", _content(body)] for name, body in body["content"].items()))
    responses = sorted(operation["responses"].items())
    yield table(
        ["status", "body", "meaning"], ([status, _body(answer), _meaning(answer)] for status, answer in responses)
    )


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")


def _parameter(parameter: dict[str, Any]) -> list[str]:
    schema = parameter["schema"]
    default = f"`{schema['default']}`" if "default" in schema else ""
    return [f"`{parameter['name']}`", parameter["in"], _type(schema), default, sentence(parameter["description"])]


def _content(body: dict[str, Any]) -> str:
    return _type(body["schema"]) if "$ref" in body["schema"] else "the image file"


def _body(answer: dict[str, Any]) -> str:
    return ", ".join(_type(of.get("schema", {})) or f"`{name}`" for name, of in answer.get("content", {}).items())


def _meaning(answer: dict[str, Any]) -> str:
    told = answer["description"]
    return "The answer." if told == "Successful Response" else sentence(told)


def _type(schema: dict[str, Any]) -> str:
    """A type in a few words, with its bounds, and a link where it is an object of its own."""
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[1]
        named = document()["components"]["schemas"][name]
        return _type(named) if "enum" in named else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        most = f"at most {schema['maxItems']} " if "maxItems" in schema else ""
        return f"{most}list of {_type(schema.get('items', {})) or 'values'}"
    if schema.get("format") == "binary":
        return "file"
    return "".join([schema.get("type", ""), *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> Iterable[str]:
    for name, words in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to")):
        if name in schema:
            yield f" {words} {schema[name]:g}"


def _schema(name: str, schema: dict[str, Any]) -> str:
    """An object: what it is, and its fields with what its docstring says of them."""
    told, _, attributes = schema.get("description", "").partition("\n\nAttributes:\n")
    of_fields = {each: text for names, text in _ATTRIBUTE.findall(attributes) for each in names.split(", ")}
    rows = [
        [f"`{field}`", _type(of), sentence(of.get("description") or of_fields.get(field, ""))]
        for field, of in schema.get("properties", {}).items()
    ]
    if not any(told for _, _, told in rows):
        return "\n\n".join([f"### {name}", told, table(["field", "type"], ([field, of] for field, of, _ in rows))])
    return "\n\n".join([f"### {name}", told, table(["field", "type", "meaning"], rows)])
