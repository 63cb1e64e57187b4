from __future__ import annotations

import pytest

from tests.image_files import solid
from tests.service.server import Server


@pytest.fixture
def of_model(server: Server) -> str:
    return f"/models/{server.context.manifest.name}"


def test_models_are_listed(server: Server) -> None:
    (listed,) = server.get("/models").json()["models"]
    manifest = server.context.manifest
    assert listed == {
        "name": manifest.name,
        "version": manifest.version,
        "state": "ready",
        "reason": None,
        "default": True,
        "ready": True,
        "labels": len(manifest.labels),
        "input_size": manifest.input_size,
    }


def test_model_is_described_by_name_and_version_as_without(server: Server, of_model: str) -> None:
    version = server.context.manifest.version
    described = server.get("/model").json()
    assert server.get(of_model).json() == server.get(f"{of_model}/versions/{version}").json() == described


def test_model_named_answers_as_the_default_does(server: Server, of_model: str) -> None:
    version = server.context.manifest.version
    expected = server.post("/classify", content=solid(3)).json()["predictions"]
    for path in (f"{of_model}/classify", f"{of_model}/versions/{version}/classify"):
        assert server.post(path, content=solid(3)).json()["predictions"] == expected
        files = [("files", ("a.png", solid(3)))]
        (result,) = server.post(f"{path}/batch", files=files).json()["results"]
        assert result["answer"]["predictions"] == expected


@pytest.mark.parametrize("path", ["/models/nobody", "/models/nobody/versions/1", "/models/{name}/versions/none"])
def test_unknown_models_and_versions_are_said_to_be(server: Server, path: str) -> None:
    asked = path.format(name=server.context.manifest.name)
    answers = [server.get(asked), server.post(f"{asked}/classify", content=solid(3))]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "unknown_model")


@pytest.mark.parametrize("path", ["/models//classify", "/models/a/b/classify", "/models/a/classify/more"])
def test_paths_that_name_no_model_are_not_found(server: Server, path: str) -> None:
    assert server.post(path, content=solid(3)).json()["error"]["type"] == "not_found"


def test_requests_are_counted_by_the_template_of_their_path(server: Server, of_model: str) -> None:
    server.post(f"{of_model}/classify", content=solid(3))
    server.post("/models/nobody/classify", content=solid(3))
    counted = server.context.metrics.render().decode()
    assert 'aig_requests_total{outcome="ok",route="/models/{name}/classify"}' in counted
    assert 'aig_requests_total{outcome="unknown_model",route="/models/{name}/classify"}' in counted
    assert "nobody" not in counted
