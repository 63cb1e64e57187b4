from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import orjson
import pytest

from service.access.keys import ApiKey, Keyring
from service.classify.graph import best_classes
from service.images.decoding import ImageDecoder
from service.repository.repository import Repository
from tests.budgets import BUDGETS, limit_all
from tests.image_files import solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.conftest import Outcome
from tests.service.http_server import http_serving, post, read_answer
from tests.service.inference import (
    HEADER,
    echo_images,
    files_input,
    infer,
    numbers_input,
    outputs_of,
    raw_files,
    raw_input,
)
from tests.service.server import Server, serving

BOSS = ApiKey(name="boss", sha256=hashlib.sha256(b"boss").hexdigest(), admin=True)
DATATYPES = {"logits": "FP32", "probabilities": "FP32", "margins": "FP32", "executed": "BOOL", "macs": "INT64"}


@pytest.fixture
def echo(echo_runtime: EchoRuntime) -> Iterator[Server]:
    with serving(echo_runtime, max_images=3, max_bytes=1000) as started:
        yield started


def test_server_tells_what_it_is(server: Server) -> None:
    told = server.get("/v2").json()
    assert told["name"] == "convnet-aig-serving"
    assert told["extensions"] == ["binary_tensor_data", "model_repository"]
    assert server.get("/v2/health/live").status_code == server.get("/v2/health/ready").status_code == 200


def test_model_tells_its_tensors_as_it_answers_with_them(server: Server, pictures: list[bytes]) -> None:
    manifest = server.context.manifest
    path = f"/v2/models/{manifest.name}"
    told = server.get(path).json()
    assert server.get(f"{path}/versions/{manifest.version}").json() == told
    assert told["versions"] == [manifest.version]
    assert [each["name"] for each in told["inputs"]] == ["encoded_images", "images", "gate_offset"]
    answered = infer(server, files_input(*pictures[:3])).json()["outputs"]
    shapes = {each["name"]: (each["datatype"], [3, *each["shape"][1:]]) for each in told["outputs"]}
    assert {each["name"]: (each["datatype"], each["shape"]) for each in answered} == shapes
    assert {name: datatype for name, (datatype, _) in shapes.items()} == DATATYPES


def test_image_files_are_answered_as_the_model_answers_them(
    server: Server, pictures: list[bytes], outcome: Outcome
) -> None:
    told = outputs_of(infer(server, files_input(*pictures[:3])))
    for row, picture in enumerate(pictures[:3]):
        logits, margins, executed = outcome(picture)
        np.testing.assert_allclose(told["logits"][row], logits, atol=1e-5)
        np.testing.assert_allclose(told["margins"][row], margins, atol=1e-5)
        np.testing.assert_array_equal(told["executed"][row], executed)
        assert told["macs"][row] == server.context.manifest.spent_macs(executed[None])[0]
        for index, probability in best_classes(tuple(logits.tolist()), 5):
            assert told["probabilities"][row][index] == pytest.approx(probability, abs=1e-6)


def test_tensors_are_answered_as_the_files_they_were_made_from(server: Server, pictures: list[bytes]) -> None:
    decoder = ImageDecoder(server.context.manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)
    tensors = np.stack([decoder.decode(picture) for picture in pictures[:2]])
    of_files, of_tensors = (
        outputs_of(infer(server, files_input(*pictures[:2]))),
        outputs_of(infer(server, numbers_input(tensors))),
    )
    for name, values in of_files.items():
        np.testing.assert_allclose(of_tensors[name], values, atol=1e-6)


def test_raw_bytes_say_the_same_as_json(echo: Server) -> None:
    images, offsets = echo_images(0.25, -0.5), np.array([2, -2], np.float32)
    in_json = outputs_of(infer(echo, numbers_input(images), numbers_input(offsets, "gate_offset")))
    raw = infer(
        echo,
        raw_input("gate_offset", "FP32", [2], 8),
        raw_input("images", "FP32", [2, 3, 2, 2], 96),
        raw=offsets.tobytes() + images.tobytes(),
    )
    for name, values in outputs_of(raw).items():
        np.testing.assert_array_equal(values, in_json[name])
    files = raw_files(solid(7), solid(9))
    as_files = infer(echo, raw_input("encoded_images", "BYTES", [2], len(files)), raw=files)
    assert as_files.json()["outputs"] == infer(echo, files_input(solid(7), solid(9))).json()["outputs"]


def test_gates_are_run_with_the_offset_of_each_image(echo: Server, echo_runtime: EchoRuntime) -> None:
    told = outputs_of(infer(echo, numbers_input(echo_images(1, 2)), numbers_input([-2.0, 2.0], "gate_offset")))
    assert told["executed"].tolist() == [[True, False, False], [True, True, True]]
    assert {-2.0, 2.0} <= {offset for batch in echo_runtime.offsets for offset in batch}


def test_outputs_are_those_that_are_wanted_in_their_order(echo: Server) -> None:
    wanted = [{"name": "macs"}, {"name": "logits", "parameters": {"binary_data": True}}]
    response = infer(echo, numbers_input(echo_images(0.5)), outputs=wanted, id="mine")
    size = int(response.headers[HEADER])
    said = json.loads(response.content[:size])
    assert said["id"] == "mine"
    assert [each["name"] for each in said["outputs"]] == ["macs", "logits"]
    assert said["outputs"][0]["data"] == [318]
    assert np.frombuffer(response.content[size:], "<f4").tolist() == [0.5, 0, 0]
    assert response.headers["content-type"] == "application/octet-stream"


def test_all_outputs_are_raw_where_the_request_says_so(echo: Server) -> None:
    response = infer(echo, numbers_input(echo_images(0.5)), parameters={"binary_data_output": True})
    said = json.loads(response.content[: int(response.headers[HEADER])])
    sizes = [each["parameters"]["binary_data_size"] for each in said["outputs"]]
    assert sizes == [12, 12, 8, 3, 8]
    assert len(response.content) == int(response.headers[HEADER]) + sum(sizes)


def test_image_that_fails_is_named_and_keeps_its_status(echo: Server) -> None:
    response = infer(echo, files_input(solid(1), b"no image", solid(2)))
    assert response.status_code == 415
    assert response.json()["error"].startswith("image 1: the file is in none of these formats")
    poisoned = echo_images(1, 2)
    poisoned[1, 0, 0, 0] = np.nan
    response = infer(echo, raw_input("images", "FP32", [2, 3, 2, 2], 96), raw=poisoned.tobytes())
    assert (response.status_code, response.json()["error"][:8]) == (400, "image 1:")


def test_requests_are_counted_by_the_template_of_their_path(echo: Server) -> None:
    infer(echo, files_input(solid(1)))
    echo.get("/v2/models/echo/ready")
    echo.post("/v2/models/nobody/infer", content=b"{}")
    counted = echo.context.metrics.render().decode()
    assert 'aig_requests_total{outcome="ok",route="/v2/models/{name}/infer"}' in counted
    assert 'aig_requests_total{outcome="unknown_model",route="/v2/models/{name}/infer"}' in counted
    assert 'aig_requests_total{outcome="ok",route="/v2/models/{name}/ready"}' in counted
    assert 'aig_images_total{model="echo",outcome="ok",version="1"} 1.0' in counted


def test_index_lists_versions_with_their_state(echo: Server) -> None:
    ready = {"name": "echo", "version": "1", "state": "READY", "reason": ""}
    assert echo.post("/v2/repository/index").json() == [ready]
    assert echo.post("/v2/repository/index", content=b'{"ready": true}').json() == [ready]
    echo.context.engine.crew.leave()
    unready = ready | {"state": "UNAVAILABLE", "reason": "stopping"}
    assert echo.post("/v2/repository/index", content=b"{}").json() == [unready]
    assert echo.post("/v2/repository/index", content=b'{"ready": true}').json() == []


def test_readiness_is_told_by_status(echo: Server) -> None:
    paths = ("/v2/health/ready", "/v2/models/echo/ready", "/v2/models/echo/versions/1/ready")
    assert [echo.get(path).status_code for path in paths] == [200] * 3
    echo.context.engine.crew.leave()
    assert [(echo.get(path).status_code, echo.get(path).json()) for path in paths] == [(503, {"error": "stopping"})] * 3
    assert echo.get("/v2/health/live").status_code == 200


def test_budget_and_degrade_are_those_of_classify(echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    echo_runtime.manifest = echo_runtime.manifest.model_copy(update={"budgets": BUDGETS})
    images = numbers_input(echo_images(0.5))
    with serving(echo_runtime, least_budget=0.4, recheck_share=1) as server:
        assert "parameters" not in infer(server, images, parameters={"budget": 0.6}).json()
        assert echo_runtime.offsets[-1] == [-1.0]
        infer(server, images, parameters={"budget": 0.6}, headers={"X-Compute-Budget": "1"})
        assert echo_runtime.offsets[-1] == [-1.0]
        infer(server, images, headers={"X-Compute-Budget": "1"})
        assert echo_runtime.offsets[-1] == [1e4]
        with monkeypatch.context() as overload:
            limit_all(overload, 0.5)
            assert infer(server, images).json()["parameters"] == {"degraded": True}
            assert echo_runtime.offsets[-1] == [-1.0]
            assert "parameters" not in infer(server, images, parameters={"degrade": "never"}).json()
            assert echo_runtime.offsets[-1] == [0.0]
        wait_until(
            lambda: (
                'aig_rechecked_images_total{model="echo",same="true",version="1"} 1.0' in server.get("/metrics").text
            )
        )


def test_client_that_leaves_is_waited_for_no_longer(echo_runtime: EchoRuntime) -> None:
    body = orjson.dumps({"inputs": [numbers_input(echo_images(2.0))]})
    route = "/v2/models/{name}/infer"
    with http_serving(echo_runtime) as server:
        echo_runtime.hold()
        with server.connect() as running:
            running.sendall(post(solid(1)))
            echo_runtime.wait_until_running()
            with server.connect() as leaving:
                leaving.sendall(post(body, target="/v2/models/echo/infer"))
                wait_until(lambda: server.context.engine.queue_depth == 1)
            wait_until(lambda: server.requests("client_gone", route) == 1)
            echo_runtime.release()
            assert read_answer(running).status == 200
        assert 2.0 not in echo_runtime.seen


def test_models_are_loaded_and_unloaded_by_who_may(echo: Server) -> None:
    for change in ("load", "unload"):
        path = f"/v2/repository/models/echo/{change}"
        assert (echo.post(path).status_code, "admin = true" in echo.post(path).json()["error"]) == (403, True)


@pytest.mark.parametrize("change", ["load", "unload"])
def test_key_for_it_changes_models(echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    changed = []

    async def note(_: Repository, name: str) -> None:
        changed.append(name)

    monkeypatch.setattr(Repository, change, note)
    key = {"X-API-Key": "boss"}
    path = f"/v2/repository/models/echo/{change}"
    with serving(echo_runtime, Keyring([BOSS])) as server:
        for body in (b"", b"{}", b'{"parameters": {"unload_dependents": false}}'):  # the last is Triton's client's
            assert server.post(path, content=body, headers=key).json() == {}
        assert server.post(path, content=b'{"parameters": {"config": "{}"}}', headers=key).status_code == 400
    assert changed == ["echo"] * 3


def test_repository_of_one_model_says_that_it_is_none(echo_runtime: EchoRuntime) -> None:
    with serving(echo_runtime, Keyring([BOSS])) as server:
        answer = server.post("/v2/repository/models/echo/load", headers={"X-API-Key": "boss"})
    assert (answer.status_code, "--model-repository" in answer.json()["error"]) == (409, True)
