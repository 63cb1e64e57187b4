from __future__ import annotations

import re

import pytest

from service.classify.budgets import HEADER as BUDGET_HEADER
from service.classify.deadlines import HEADER
from service.classify.schemas import ModelDescription
from service.engine.runtimes.onnx import OnnxRuntime
from tests.budgets import BUDGETS
from tests.image_files import encoded, photograph
from tests.runtimes import EchoRuntime
from tests.service.server import Server, serving


def test_model_route_describes_the_model(server: Server, runtime: OnnxRuntime) -> None:
    response = server.get("/model")
    assert response.status_code == 200
    told = ModelDescription.model_validate(response.json(), extra="forbid")
    manifest = runtime.manifest
    for name in set(ModelDescription.model_fields) - {"engine", "limits", "labels", "blocks", "budgets"}:
        assert getattr(told, name) == getattr(manifest, name), name
    assert tuple(told.labels) == manifest.labels
    assert tuple(told.blocks) == manifest.blocks
    assert told.budgets == []


def test_openapi_tells_the_smallest_budget(echo_runtime: EchoRuntime) -> None:
    echo_runtime.manifest = echo_runtime.manifest.model_copy(update={"budgets": BUDGETS})
    with serving(echo_runtime) as server:
        document = server.get("/openapi.json").json()
    for path, form in (("/classify", "ImageForm"), ("/classify/batch", "ImagesForm")):
        told = {each["name"]: each["schema"] for each in document["paths"][path]["post"]["parameters"]}
        in_form = document["components"]["schemas"][form]["properties"]["budget"]["items"]
        expected = {"type": "number", "minimum": 0.3, "maximum": 1}
        assert told["budget"] == told[BUDGET_HEADER] == in_form == expected
        assert "max_latency_ms" in told


def test_model_route_tells_its_budgets(echo_runtime: EchoRuntime) -> None:
    echo_runtime.manifest = echo_runtime.manifest.model_copy(update={"budgets": BUDGETS})
    with serving(echo_runtime) as server:
        told = server.get("/model").json()["budgets"]
    assert [row["gate_offset"] for row in told] == [-1e4, -1.0, 0.0, 1e4]
    assert told[1] == {
        "gate_offset": -1.0,
        "mac_share": 0.5,
        "mac_share_p95": 0.6,
        "accuracy": {"value": 0.85, "low": 0.84, "high": 0.86},
        "same_as_full": 0.95,
    }


def test_model_route_describes_engine_and_limits(runtime: OnnxRuntime) -> None:
    settings = {
        "workers": 3,
        "max_batch": 5,
        "max_wait_ms": 1.5,
        "queue_size": 7,
        "max_bytes": 1000,
        "max_pixels": 2000,
        "max_images": 4,
        "deadline_ms": 900,
        "formats": ["PNG", "JPEG"],
    }
    with serving(runtime, **settings) as server:
        told = server.get("/model").json()
    assert told["engine"] == {
        "runtime": runtime.name,
        "device": "cpu",
        "precision": "fp32",
        "workers": 3,
        "max_batch": 5,
        "max_wait_ms": 1.5,
        "queue_size": 7,
        "chosen": {"runtime": "set", "workers": "set", "max_batch": "set", "max_wait_ms": "set"},
        "candidates": [],
    }
    assert told["limits"] == {
        "formats": ["PNG", "JPEG"],
        "max_bytes": 1000,
        "max_pixels": 2000,
        "max_images": 4,
        "deadline_ms": 900,
    }


def test_health_and_readiness_are_told(server: Server) -> None:
    assert (server.get("/healthz").status_code, server.get("/healthz").json()) == (200, {"status": "alive"})
    assert (server.get("/readyz").status_code, server.get("/readyz").json()) == (200, {"status": "ready"})


def test_openapi_describes_every_route_and_parameter(server: Server) -> None:
    described = server.get("/openapi.json").json()
    assert {operation["operationId"] for path in described["paths"].values() for operation in path.values()} == {
        *(f"{what}{by}" for what in ("classify", "classify_batch") for by in ("", "_by_model", "_by_version")),
        *("get_default_model", "get_model", "get_model_version", "list_models"),
        *("load_model", "load_version", "unload_model", "unload_version"),
        *("get_health", "get_metrics", "get_readiness"),
    }
    for path, content_types in (
        ("/classify", {"application/json", "application/octet-stream", "image/*", "multipart/form-data"}),
        ("/classify/batch", {"multipart/form-data"}),
    ):
        operation = described["paths"][path]["post"]
        names = {"top_k", "graph", "degrade", HEADER}  # of the budgets that the model does not have nothing
        assert {parameter["name"] for parameter in operation["parameters"]} == names
        assert set(operation["requestBody"]["content"]) == content_types
        errors = [answer for status, answer in operation["responses"].items() if status != "200"]
        references = {error["content"]["application/json"]["schema"]["$ref"] for error in errors}
        assert references == {"#/components/schemas/ErrorResponse"}


def test_openapi_tells_that_answers_are_whole_and_may_come_to_have_more(server: Server) -> None:
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    answers = {name: schema for name, schema in schemas.items() if "enum" not in schema and not name.endswith("Form")}
    assert {name for name, schema in answers.items() if schema["required"] != [*schema["properties"]]} == {"Status"}
    assert not any("additionalProperties" in schema for schema in answers.values())


def test_documentation_page_needs_nothing_from_elsewhere(server: Server) -> None:
    page = server.get("/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    local = [link for link in links if not link.startswith("data:")]
    assert any(link.endswith(".js") for link in local)
    assert all(server.get(link).status_code == 200 for link in local if link.startswith("/"))
    assert [link for link in local if not link.startswith("/")] == []


@pytest.mark.parametrize("path", ["/model", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_reading_routes_take_no_other_method(server: Server, path: str) -> None:
    assert server.post(path).status_code == 405


def test_documentation_and_decoder_know_the_formats_that_are_set(runtime: OnnxRuntime) -> None:
    with serving(runtime, formats="PNG,AVIF") as server:
        for path, field in (("/classify", "file"), ("/classify/batch", "files")):
            body = server.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]["content"]
            assert body["multipart/form-data"]["encoding"] == {field: {"contentType": "image/png, image/avif"}}
        assert server.classify(encoded(photograph(20, 20), "AVIF")).status_code == 200
        refused = server.classify(encoded(photograph(20, 20), "JPEG"))
    assert (refused.status_code, refused.json()["error"]["type"]) == (415, "unsupported_image")
