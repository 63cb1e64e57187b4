"""Requests of the Open Inference Protocol that are nearly right, in JSON with raw bytes, and as messages of gRPC."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ApiError
from service.grpc.messages import raw_bytes, read_request
from service.grpc.open_inference_pb2 import InferParameter, InferTensorContents, ModelInferRequest
from service.grpc.wire import require_quickly_read
from service.protocol.bodies import RawBody
from service.protocol.request import Inference, Limits
from tests.image_files import solid
from tests.runtimes import EchoRuntime, echo_manifest
from tests.service.inference import HEADER
from tests.service.server import Server, serving

NAMES = st.sampled_from(["encoded_images", "images", "gate_offset", "image", ""])
DATATYPES = st.sampled_from(["BYTES", "FP32", "FP64", "INT8", ""])
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(width=32) | st.sampled_from([0, 1, 0.5, 1e39, -1e-46])
SHAPES = st.sampled_from([[1], [2], [1, 3, 2, 2], [2, 3, 2, 2], [], [-1], [0], [2**62], [1, 1]]) | st.lists(
    st.integers(-(2**62), 2**62), max_size=9
)
TEXTS = st.sampled_from([base64.b64encode(solid(5)).decode(), "", "a", "AAAA", "ÄÖ", "\0"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(TEXTS, each, max_size=2),
)
RAW = st.sampled_from([bytes(48), bytes(96), bytes(4), b"\xff" * 4, len(solid(5)).to_bytes(4, "little") + solid(5)])
PARAMETERS = st.dictionaries(
    st.sampled_from(["budget", "degrade", "binary_data_output", "binary_data_size"]), VALUES, max_size=2
)


@pytest.fixture(scope="module")
def echo() -> Iterator[Server]:
    with serving(EchoRuntime(), max_images=2, max_bytes=1000) as started:
        yield started


@st.composite
def described(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A description in JSON, and bytes that may be those which it tells of."""
    inputs, raw = [], b""
    for _ in range(draw(st.integers(0, 3))):
        shape = draw(SHAPES)
        tensor: dict[str, Any] = {"name": draw(NAMES), "datatype": draw(DATATYPES), "shape": shape}
        kind = draw(st.integers(0, 3))
        if kind == 0:
            tensor["data"] = draw(VALUES)
        elif kind == 1:
            count = math.prod(shape)
            tensor["data"] = draw(st.lists(NUMBERS | TEXTS, max_size=24)) if not 0 < count < 30 else [0.5] * count
        else:
            piece = draw(RAW)
            raw += piece
            tensor["parameters"] = {"binary_data_size": len(piece) + draw(st.sampled_from([0, 0, 0, 1, -1]))}
        inputs.append(tensor)
    request: dict[str, Any] = {"inputs": inputs, "parameters": draw(PARAMETERS)}
    if draw(st.booleans()):
        request["outputs"] = draw(VALUES)
    return orjson.dumps(request), raw + draw(st.sampled_from([b"", b"", b"a"]))


@given(request=described(), shift=st.sampled_from([0, 0, 0, 1, -1, 10**6]), in_json=st.booleans())
def test_what_comes_as_json_is_answered_or_refused(
    echo: Server, request: tuple[bytes, bytes], shift: int, in_json: bool
) -> None:
    said, raw = request
    headers = {} if in_json else {HEADER: str(len(said) + shift)}
    response = echo.post("/v2/models/echo/infer", content=said + (b"" if in_json else raw), headers=headers)
    assert response.status_code in {200, 400, 413, 415, 422}, response.text
    if response.status_code != 200:
        assert list(response.json()) == ["error"]
    assert echo.context.memory.held == 0


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """The bytes of a message, which may be as they should be."""
    inputs = [
        ModelInferRequest.InferInputTensor(
            name=draw(NAMES),
            datatype=draw(DATATYPES),
            shape=draw(SHAPES),
            contents=InferTensorContents(fp32_contents=[0.5] * draw(st.sampled_from([1, 12, 24])))
            if draw(st.booleans())
            else None,
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    raw = draw(st.lists(RAW, max_size=3))
    parameters = {"budget": InferParameter(string_param=draw(TEXTS))} if draw(st.booleans()) else {}
    message = ModelInferRequest(inputs=inputs, raw_input_contents=raw, parameters=parameters)
    sent = bytearray(message.SerializeToString())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(sent)))
        sent[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(sent)


@given(sent=messages())
def test_what_comes_as_a_message_is_images_or_refused(sent: bytes) -> None:
    with suppress(ApiError, DecodeError):
        require_quickly_read(sent)
        message = ModelInferRequest.FromString(sent)
        inference = Inference(read_request(message), echo_manifest(), Limits(2, 1000))
        body = RawBody(inference)
        for piece in raw_bytes(message):
            body.take(piece)
        assert 1 <= len(body.uploads()) <= 2
