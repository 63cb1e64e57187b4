"""What is wrong with requests of the Open Inference Protocol is told in its form, whatever finds it out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.access.keys import ApiKey, Keyring
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.inference import (
    HEADER,
    echo_images,
    files_input,
    infer,
    numbers_input,
    raw_files,
    raw_input,
)
from tests.service.server import Server, serving

IMAGES = echo_images(0.5)
FILE = files_input(solid(1))
NUMBERS = numbers_input(IMAGES)
OFFSET = numbers_input([1.0], "gate_offset")


@pytest.fixture(scope="module")
def echo() -> Iterator[Server]:
    with serving(EchoRuntime(), max_images=3, max_bytes=1000) as started:
        yield started


def _require_refused(response: httpx.Response, status: int, said: str) -> None:
    assert response.json().keys() == {"error"}, response.text
    assert said in response.json()["error"]
    assert response.status_code == status


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "send either 'encoded_images' or 'images'"),
        ([OFFSET], "send either"),
        ([FILE, NUMBERS], "send either"),
        ([FILE, FILE], "the input 'encoded_images' is there twice"),
        ([FILE | {"name": "pictures"}], "there is no input 'pictures'"),
        ([FILE | {"name": "x" * 10_000}], "there is no input 'xxx"),
        ([FILE | {"datatype": "FP32"}], "must be numbers"),
        ([NUMBERS | {"datatype": "BYTES"}], "must be a string with base64"),
        ([NUMBERS | {"datatype": "FP64"}], "its datatype must be BYTES or FP32"),
        ([FILE | {"shape": [-1]}], "with at least 1 in place of -1"),
        ([FILE | {"shape": [0], "data": []}], "with at least 1 in place of -1"),
        ([FILE | {"shape": []}], "its shape must be [-1]"),
        ([FILE | {"shape": [1, 1]}], "its shape must be [-1]"),
        ([FILE | {"shape": [2]}], "1 elements, where its shape has 2"),
        ([FILE | {"shape": [2**62]}], "at most 3 images"),
        ([FILE | {"shape": [1.0]}], "inputs.0.shape.0: Input should be a valid integer"),
        ([FILE | {"shape": [True]}], "inputs.0.shape.0: Input should be a valid integer"),
        ([FILE | {"shape": [1] * 1000}], "inputs.0.shape: List should have at most 8 items"),
        ([files_input(*[solid(1)] * 4)], "at most 3 images, not 4"),
        ([NUMBERS | {"shape": [1, 3, 2, 3]}], "its lists are not of its shape [1, 3, 2, 3]"),
        ([NUMBERS | {"data": [0.0] * 11}], "11 values, where its shape [1, 3, 2, 2] has 12"),
        ([NUMBERS | {"shape": [1, 3, 4, 1], "data": [0.0] * 12}], "its shape must be [-1, 3, 2, 2]"),
        ([NUMBERS | {"shape": [-1, -3, 2, 2]}], "its lists are not of its shape"),
        ([NUMBERS | {"data": [None] * 12}], "must be numbers"),
        ([NUMBERS | {"data": ["1"] * 12}], "must be numbers"),
        ([NUMBERS | {"data": "1"}], "its data must be a list"),
        ([NUMBERS | {"data": None}], "either data or the parameter 'binary_data_size'"),
        ([NUMBERS, OFFSET | {"shape": [2], "data": [1, 2]}], "it is for 2 images, where there are 1"),
        ([NUMBERS | {"parameters": {"binary_data_size": 48}}], "either data or the parameter"),
        ([NUMBERS | {"parameters": {"scale": 2}}], "there is no parameter 'scale'"),
        ([NUMBERS | {"colour": 1}], "inputs.0.colour: Extra inputs are not permitted"),
        ([FILE | {"data": ["a"]}], "element 0 is no base64"),
        ([FILE | {"data": ["ÄÖ=="]}], "element 0 is no base64"),
        ([FILE | {"data": [7]}], "element 0 must be a string with base64"),
        ([1], "inputs.0: Input should be"),
        ([FILE] * 17, "inputs: List should have at most 16 items"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(echo: Server, inputs: list[Any], said: str) -> None:
    _require_refused(infer(echo, *inputs), 400, said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"outputs": [{"name": "classes"}]}, "there is no output 'classes'"),
        ({"outputs": [{"name": "macs"}, {"name": "macs"}]}, "the output 'macs' is there twice"),
        ({"outputs": [{"name": "macs", "parameters": {"classification": 3}}]}, "no parameter 'classification'"),
        ({"outputs": [{"name": "macs", "parameters": {"binary_data": 1}}]}, "must be true or false"),
        ({"parameters": {"binary_data_output": "yes"}}, "must be true or false"),
        ({"parameters": {"budgets": 1}}, "there is no parameter 'budgets'"),
        ({"parameters": {"degrade": "perhaps"}}, "must be allow or never"),
        ({"parameters": {"budget": True}}, "must be a number"),
        ({"parameters": {"budget": [1]}}, "parameters.budget"),
        ({"parameters": 7}, "parameters: Input should be a valid dictionary"),
        ({"id": 7}, "id: Input should be a valid string"),
        ({"id": "x" * 257}, "more than 256 characters"),
        ({"sequence": 7}, "sequence: Extra inputs are not permitted"),
    ],
)
def test_other_parts_that_do_not_fit_are_refused(echo: Server, more: dict[str, Any], said: str) -> None:
    _require_refused(infer(echo, NUMBERS, **more), 400, said)


def test_budget_that_cannot_be_had_is_refused_as_by_classify(echo: Server) -> None:
    _require_refused(infer(echo, NUMBERS, parameters={"budget": 0.5}), 422, "exported without budgets")
    _require_refused(infer(echo, NUMBERS, parameters={"budget": 7}), 422, "above 0 and at most 1")
    _require_refused(infer(echo, NUMBERS, headers={"X-Compute-Budget": "0.5"}), 422, "exported without budgets")
    _require_refused(infer(echo, NUMBERS, OFFSET, parameters={"budget": 0.5}), 400, "send either the input")


@pytest.mark.parametrize(
    ("inputs", "raw", "said"),
    [
        ([raw_input("images", "FP32", [1, 3, 2, 2], 48)], bytes(47), "47 bytes of binary data came"),
        ([raw_input("images", "FP32", [1, 3, 2, 2], 48)], bytes(49), "49 bytes of binary data came"),
        ([raw_input("images", "FP32", [1, 3, 2, 2], 48)], b"", "0 bytes of binary data came"),
        ([raw_input("images", "FP32", [1, 3, 2, 2], 44)], bytes(44), "44 bytes, where its shape [1, 3, 2, 2] has 48"),
        ([raw_input("images", "FP32", [1, 3, 2, 2], -48)], bytes(48), "must be a whole number"),
        ([raw_input("images", "FP32", [1, 3, 2, 2], 2**62)], bytes(48), "where its shape"),
        ([raw_input("encoded_images", "BYTES", [1], 8)], b"\xff" * 8, "4294967295 bytes, of which 4 are there"),
        ([raw_input("encoded_images", "BYTES", [1], 3)], bytes(3), "end before the length of element 0"),
        ([raw_input("encoded_images", "BYTES", [1], 6)], bytes(6), "2 bytes are left"),
        ([raw_input("gate_offset", "FP32", [1], 4), NUMBERS], np.float32("nan").tobytes(), "no finite numbers"),
        ([NUMBERS], bytes(4), "4 bytes of binary data came, where the inputs have 0"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(echo: Server, inputs: list[Any], raw: bytes, said: str) -> None:
    _require_refused(infer(echo, *inputs, raw=raw), 400, said)


@pytest.mark.parametrize(
    ("length", "said"),
    [
        ("-1", "must be a whole number above 0"),
        ("0", "must be a whole number above 0"),
        ("none", "must be a whole number above 0"),
        ("9" * 30, "must be a whole number above 0"),
        ("99999999999", "at most 8388608 may be"),
        ("100000", "the body ends before the JSON"),
        ("5", "the JSON cannot be read"),
    ],
)
def test_header_that_lies_is_refused(echo: Server, length: str, said: str) -> None:
    _require_refused(infer(echo, NUMBERS, raw=b"", headers={HEADER: length}), 400, said)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'"x"', b"\xff", b'{"inputs": 7}', b"{}", b"[" * 5000])
def test_json_that_is_no_request_is_refused(echo: Server, body: bytes) -> None:
    response = echo.post("/v2/models/echo/infer", content=body)
    _require_refused(response, 400, "")


def test_too_much_json_is_refused(echo: Server) -> None:
    for body in (b"[" * 10_001, b"," * 200_001, b":" * 1001):
        _require_refused(echo.post("/v2/models/echo/infer", content=body), 413, "JSON may have at most")
    _require_refused(echo.post("/v2/models/echo/infer", content=bytes(8_388_609)), 413, "8388608 bytes")


def test_images_that_are_too_large_are_refused(echo: Server) -> None:
    large = bytes(1001)
    _require_refused(infer(echo, files_input(solid(1), large)), 413, "element 1 has more than 1000 bytes")
    raw = raw_files(large)
    described = raw_input("encoded_images", "BYTES", [1], len(raw))
    _require_refused(infer(echo, described, raw=raw), 413, "an image may have 1000")
    described = raw_input("encoded_images", "BYTES", [2], len(raw) + 4)
    _require_refused(infer(echo, described, raw=raw + raw_files(b"")), 413, "element 0 has more than 1000 bytes")


def test_refusals_before_the_body_have_the_form_of_the_protocol(echo: Server) -> None:
    path = "/v2/models/echo/infer"
    _require_refused(echo.get(path), 405, "")
    assert echo.get(path).headers["allow"] == "POST"
    _require_refused(echo.post("/v2/health/live"), 405, "")
    _require_refused(echo.get("/v2/nothing"), 404, "")
    _require_refused(echo.post("/v2/models/nobody/infer", content=b"{}"), 404, "no model 'nobody'")
    _require_refused(echo.get("/v2/models/echo/versions/9"), 404, "no version '9' of echo")
    _require_refused(echo.post(path + "?budget=1", content=b"{}"), 400, "takes no query")
    _require_refused(infer(echo, NUMBERS, headers={"content-encoding": "gzip"}), 415, "without encoding")
    _require_refused(infer(echo, NUMBERS, headers={"X-Request-Timeout-Ms": "soon"}), 422, "milliseconds")
    _require_refused(infer(echo, NUMBERS, headers={f"x-{number}": "1" for number in range(200)}), 431, "headers")
    _require_refused(echo.post("/v2/repository/index", content=bytes(5000)), 413, "at most 4096 bytes")
    _require_refused(echo.post("/v2/repository/index", content=b'{"ready": 1}'), 400, "valid boolean")


def test_full_queue_and_late_answers_have_the_form_of_the_protocol(echo_runtime: EchoRuntime) -> None:
    with serving(echo_runtime, workers=1, max_batch=1, queue_size=1) as server:
        echo_runtime.hold()
        late = infer(server, NUMBERS, headers={"X-Request-Timeout-Ms": "30"})
        _require_refused(late, 504, "image 0: the request was not answered within its deadline")
        waiting = [server.begin("POST", "/classify", content=solid(1)) for _ in range(3)]
        while server.context.engine.queue_depth < 1:
            pass
        refused = infer(server, NUMBERS)
        _require_refused(refused, 429, "as much work queued")
        assert int(refused.headers["retry-after"]) >= 1
        echo_runtime.release()
        assert {each.result().status_code for each in waiting} <= {200, 429}


def test_stopping_server_says_so_in_the_form_of_the_protocol(echo_runtime: EchoRuntime) -> None:
    with serving(echo_runtime) as server:
        server.wait_for(server.context.engine.crew.stop(0))
        _require_refused(infer(server, NUMBERS), 503, "the server is stopping")


def test_memory_that_others_hold_is_respected(echo_runtime: EchoRuntime) -> None:
    with serving(echo_runtime, max_pending_bytes=2000) as server:
        with server.context.memory.share() as held:
            held.take(1900)
            _require_refused(infer(server, NUMBERS), 429, "as much work queued")
        assert infer(server, NUMBERS).status_code == 200
        assert server.context.memory.held == 0


def test_keys_are_asked_for_and_charged(echo_runtime: EchoRuntime) -> None:
    digest = hashlib.sha256(b"mine").hexdigest()
    key = ApiKey.model_validate({"name": "mine", "sha256": digest, "images_per_second": 0.001, "burst_images": 2})
    with serving(echo_runtime, Keyring([key])) as server:
        for path in ("/v2", "/v2/models/echo", "/v2/models/echo/ready"):
            _require_refused(server.get(path), 401, "API key")
        assert server.get("/v2/health/live").status_code == server.get("/v2/health/ready").status_code == 200
        assert infer(server, NUMBERS).headers["www-authenticate"] == "Bearer"
        sent = {"X-API-Key": "mine"}
        assert infer(server, numbers_input(echo_images(1, 2)), headers=sent).status_code == 200
        limited = infer(server, NUMBERS, headers=sent)
        _require_refused(limited, 429, "images a second")
        assert "retry-after" in limited.headers
