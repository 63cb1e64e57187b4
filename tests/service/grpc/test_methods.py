from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.grpc import open_inference_pb2 as messages
from service.grpc.statuses import status_code
from tests.image_files import solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.grpc.calling import SERVICE, Grpc, arrays, asking, files, grpc_serving, numbers
from tests.service.http_server import ask, post
from tests.service.inference import echo_images, raw_files

IMAGES = echo_images(0.5, -1.0)
NUMBERS = numbers(IMAGES)
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def echo() -> Iterator[Grpc]:
    with grpc_serving(EchoRuntime(), max_images=3, max_bytes=1000) as started:
        yield started


def test_server_and_model_are_told_as_over_http(echo: Grpc) -> None:
    told = echo.call("ModelMetadata", messages.ModelMetadataRequest(name="echo", version="1"))
    over_http = ask(echo.server, b"GET /v2/models/echo HTTP/1.1\r\nhost: a\r\n\r\n").body
    assert [(each.name, each.datatype, list(each.shape)) for each in (*told.inputs, *told.outputs)] == [
        (each["name"], each["datatype"], each["shape"]) for each in (*over_http["inputs"], *over_http["outputs"])
    ]
    assert (told.name, list(told.versions), told.platform) == ("echo", ["1"], over_http["platform"])
    server = echo.call("ServerMetadata", messages.ServerMetadataRequest())
    assert (server.name, list(server.extensions)) == ("convnet-aig-serving", ["binary_tensor_data", "model_repository"])
    assert echo.call("ServerLive", messages.ServerLiveRequest()).live
    assert echo.call("ServerReady", messages.ServerReadyRequest()).ready
    assert echo.call("ModelReady", messages.ModelReadyRequest(name="echo")).ready
    (listed,) = echo.call("RepositoryIndex", messages.RepositoryIndexRequest()).models
    assert (listed.name, listed.version, listed.state) == ("echo", "1", "READY")


def test_contents_and_raw_bytes_are_answered_alike(echo: Grpc) -> None:
    raw = echo.infer(asking(IMAGES.tobytes(), inputs=[NUMBERS], id="mine"))
    typed = asking(inputs=[NUMBERS])
    typed.inputs[0].contents.fp32_contents.extend(IMAGES.ravel())
    answer = echo.infer(typed)
    assert raw.raw_output_contents
    assert not answer.raw_output_contents
    assert arrays(raw) == arrays(answer)
    assert arrays(raw)["logits"] == [[0.5, 0, 0], [-1.0, 0, 0]]
    assert (raw.id, raw.model_name, raw.model_version) == ("mine", "echo", "1")


def test_image_files_come_in_contents_or_raw(echo: Grpc) -> None:
    typed = asking(inputs=[files(2)])
    typed.inputs[0].contents.bytes_contents.extend([solid(3), solid(5)])
    raw = asking(raw_files(solid(3), solid(5)), inputs=[files(2)])
    assert arrays(echo.infer(typed)) == arrays(echo.infer(raw))


def test_outputs_and_gate_offsets_are_as_asked_for(echo: Grpc) -> None:
    offsets = np.array([-2, 2], np.float32)
    wanted = messages.ModelInferRequest.InferRequestedOutputTensor(name="executed")
    asked = asking(
        IMAGES.tobytes(), offsets.tobytes(), inputs=[NUMBERS, numbers(offsets, "gate_offset")], outputs=[wanted]
    )
    assert arrays(echo.infer(asked)) == {"executed": [[True, False, False], [True, True, True]]}


def _with(**fields: Any) -> messages.ModelInferRequest:
    return asking(IMAGES.tobytes(), **({"inputs": [NUMBERS]} | fields))


def _parameters(**values: Any) -> dict[str, messages.InferParameter]:
    return {name: messages.InferParameter(**value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (_with(model_name="nobody"), CODE.NOT_FOUND, "no model 'nobody'"),
        (_with(model_version="9"), CODE.NOT_FOUND, "no version '9'"),
        (_with(inputs=[]), CODE.INVALID_ARGUMENT, "as many raw_input_contents as inputs"),
        (_with(inputs=[NUMBERS] * 17), CODE.INVALID_ARGUMENT, "at most 16 inputs"),
        (asking(inputs=[NUMBERS]), CODE.INVALID_ARGUMENT, "0 bytes, where its shape"),
        (asking(), CODE.INVALID_ARGUMENT, "send either 'encoded_images' or 'images'"),
        (asking(bytes(95), inputs=[NUMBERS]), CODE.INVALID_ARGUMENT, "95 bytes, where its shape"),
        (asking(b"\xff" * 8, inputs=[files(1)]), CODE.INVALID_ARGUMENT, "of which 4 are there"),
        (asking(raw_files(bytes(1001)), inputs=[files(1)]), CODE.INVALID_ARGUMENT, "an image may have 1000"),
        (asking(raw_files(b"no image"), inputs=[files(1)]), CODE.INVALID_ARGUMENT, "image 0: the file is in none"),
        (asking(np.full(12, np.nan, "f4").tobytes(), inputs=[numbers(IMAGES[:1])]), CODE.INVALID_ARGUMENT, "finite"),
        (_with(parameters=_parameters(budget={})), CODE.INVALID_ARGUMENT, "has no value"),
        (_with(parameters=_parameters(budget={"double_param": 0.5})), CODE.INVALID_ARGUMENT, "without budgets"),
        (_with(parameters=_parameters(budget={"string_param": "x"})), CODE.INVALID_ARGUMENT, "above 0 and at most 1"),
        (_with(parameters=_parameters(colour={"bool_param": True})), CODE.INVALID_ARGUMENT, "no parameter 'colour'"),
    ],
)
def test_what_does_not_fit_is_refused(echo: Grpc, message: messages.ModelInferRequest, code: CODE, said: str) -> None:
    told_code, words, metadata = echo.refused("ModelInfer", message)
    assert said in words
    assert told_code == code
    assert metadata["x-request-id"]


def test_contents_of_another_kind_are_refused(echo: Grpc) -> None:
    both, wrong, unknown = _with(), asking(inputs=[NUMBERS]), asking(inputs=[NUMBERS])
    both.inputs[0].contents.fp32_contents.append(1)
    wrong.inputs[0].contents.int_contents.extend([1] * 24)
    unknown.inputs[0].datatype = "FP64"
    for message, said in ((both, "either contents or"), (wrong, "must be fp32_contents"), (unknown, "BYTES or FP32")):
        code, words, _ = echo.refused("ModelInfer", message)
        assert (code, said in words) == (CODE.INVALID_ARGUMENT, True), words


def test_contents_that_are_too_many_are_refused(echo: Grpc) -> None:
    many, images = asking(inputs=[NUMBERS]), asking(inputs=[files(2)])
    many.inputs[0].contents.fp32_contents.extend([1.0] * 300_000)
    images.inputs[0].contents.bytes_contents.extend([b""] * 100_000)
    assert "at most 1048576 bytes besides its raw_input_contents" in echo.refused("ModelInfer", many)[1]
    assert "it has 400000 bytes; an image may have 1000" in echo.refused("ModelInfer", images)[1]


def test_bytes_that_are_no_message_are_refused(echo: Grpc) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        echo.channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"\xff\xff", timeout=5)
    error: Any = raised.value
    assert (error.code(), error.details()) == (CODE.INVALID_ARGUMENT, "the message cannot be read")


def test_unknown_parameters_of_tensors_are_refused(echo: Grpc) -> None:
    message = _with()
    message.inputs[0].parameters["binary_data_size"].int64_param = 96  # KServe's client sends it
    assert echo.infer(message).outputs
    message.inputs[0].parameters["scale"].int64_param = 2
    assert "no parameter 'scale'" in echo.refused("ModelInfer", message)[1]


def test_message_that_is_too_long_is_refused_before_it_is_read(echo: Grpc) -> None:
    code, _, _ = echo.refused("ModelInfer", asking(bytes(4_200_000), inputs=[files(1)]))
    assert code == CODE.RESOURCE_EXHAUSTED


def test_id_of_a_request_is_repeated(echo: Grpc) -> None:
    method = echo.method("ModelInfer")
    _, call = method.with_call(_with(), metadata=[("x-request-id", "mine-7")])
    assert dict(call.trailing_metadata())["x-request-id"] == "mine-7"


def test_calls_are_counted_by_method(echo: Grpc) -> None:
    route = f"/{SERVICE}/ModelInfer"
    before, images = echo.server.requests("ok", route), echo.server.images("ok")
    echo.infer(_with())
    assert (echo.server.requests("ok", route), echo.server.images("ok")) == (before + 1, images + 2)
    before = echo.server.requests("unknown_model", route)
    echo.refused("ModelInfer", _with(model_name="nobody"))
    assert echo.server.requests("unknown_model", route) == before + 1


def test_unknown_methods_are_unimplemented(echo: Grpc) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        echo.channel.unary_unary(f"/{SERVICE}/ModelConfig")(b"", timeout=5)
    assert raised.value.code() == CODE.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_health_service_tells_what_readyz_tells(echo_runtime: EchoRuntime) -> None:
    with grpc_serving(echo_runtime) as echo:
        health = health_pb2_grpc.HealthStub(echo.channel)

        def status(service: str = "") -> int:
            return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status

        serving = health_pb2.HealthCheckResponse.SERVING
        wait_until(lambda: status() == serving == status(SERVICE))
        echo.server.context.engine.crew.leave()
        wait_until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING == status(SERVICE))
        assert not echo.call("ServerReady", messages.ServerReadyRequest()).ready
        assert not echo.call("ModelReady", messages.ModelReadyRequest(name="echo")).ready


def test_services_can_be_asked_for(echo: Grpc) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(echo.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=5)
    names = {each.name for each in answer.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_http_goes_on_beside_it(echo: Grpc) -> None:
    assert ask(echo.server, post(solid(7))).status == 200


def test_every_status_of_an_error_has_a_code() -> None:
    codes = {status: status_code(status) for status in (400, 401, 404, 413, 415, 422, 429, 500, 503, 504)}
    assert codes == {
        400: CODE.INVALID_ARGUMENT,
        401: CODE.UNAUTHENTICATED,
        404: CODE.NOT_FOUND,
        413: CODE.INVALID_ARGUMENT,
        415: CODE.INVALID_ARGUMENT,
        422: CODE.INVALID_ARGUMENT,
        429: CODE.RESOURCE_EXHAUSTED,
        500: CODE.INTERNAL,
        503: CODE.UNAVAILABLE,
        504: CODE.DEADLINE_EXCEEDED,
    }
