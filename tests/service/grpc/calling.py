"""Calls of a server's methods, written with nothing but gRPC itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from artifact.preprocessing import Float32Array
from service.access.keys import KeySource
from service.engine.runtimes.base import Runtime
from service.grpc import open_inference_pb2 as messages
from service.observability.tracing import Tracing
from tests.runtimes import PATIENCE_S
from tests.service.http_server import RunningServer, http_serving

SERVICE = "inference.GRPCInferenceService"


@dataclass
class Grpc:
    """A server, and a channel to it.

    Attributes:
        server: that is running, which speaks HTTP too.
        channel: to its gRPC port.
    """

    server: RunningServer
    channel: grpc.Channel
    port: int

    def method(self, name: str) -> Any:
        """What calls a method of one request and one answer."""
        method = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[name]
        asked, told = (getattr(messages, kind.name) for kind in (method.input_type, method.output_type))
        make: Any = self.channel.stream_stream if method.client_streaming else self.channel.unary_unary
        return make(f"/{SERVICE}/{name}", asked.SerializeToString, told.FromString)

    def call(self, name: str, message: Message, **arguments: Any) -> Any:
        return self.method(name)(message, **({"timeout": PATIENCE_S} | arguments))

    def infer(self, message: messages.ModelInferRequest, **arguments: Any) -> messages.ModelInferResponse:
        return self.call("ModelInfer", message, **arguments)

    def refused(self, name: str, message: Message, **arguments: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        """The status, the words and the metadata that a call is refused with."""
        try:
            answer = self.call(name, message, **arguments)
        except grpc.RpcError as error:
            call: Any = error
            return call.code(), call.details(), dict(call.trailing_metadata())
        raise AssertionError(f"it was answered: {answer}")

    def refused_stream(self) -> grpc.StatusCode | None:
        """The status that a stream which sends nothing is refused with at once; None where it is let in."""
        stream = self.method("ModelStreamInfer")(iter(()), timeout=PATIENCE_S)
        try:
            list(stream)
        except grpc.RpcError as error:
            refused: Any = error
            code: grpc.StatusCode = refused.code()
            return code
        return None


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def grpc_serving(
    runtime: Runtime, keys: KeySource | None = None, tracing: Tracing | None = None, **settings: Any
) -> Iterator[Grpc]:
    """A started server that speaks gRPC too."""
    port = free_port()
    with (
        http_serving(runtime, keys, tracing, grpc_port=port, **settings) as server,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield Grpc(server, channel, port)


def asking(*raw: bytes, **fields: Any) -> messages.ModelInferRequest:
    """A request to the model of `EchoRuntime`."""
    return messages.ModelInferRequest(**({"model_name": "echo", "raw_input_contents": raw} | fields))


def numbers(images: Float32Array, name: str = "images") -> messages.ModelInferRequest.InferInputTensor:
    """The description of numbers."""
    return messages.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=images.shape)


def files(count: int) -> messages.ModelInferRequest.InferInputTensor:
    """The description of image files."""
    return messages.ModelInferRequest.InferInputTensor(name="encoded_images", datatype="BYTES", shape=[count])


def arrays(answer: messages.ModelInferResponse) -> dict[str, list[Any]]:
    """The outputs of an answer as lists, from raw bytes or from contents."""
    kinds = {"FP32": ("<f4", "fp32_contents"), "BOOL": ("?", "bool_contents"), "INT64": ("<i8", "int64_contents")}
    found = {}
    for place, output in enumerate(answer.outputs):
        kind, contents = kinds[output.datatype]
        if answer.raw_output_contents:
            values = np.frombuffer(answer.raw_output_contents[place], kind)
        else:
            values = np.array(getattr(output.contents, contents), kind)
        found[output.name] = values.reshape(output.shape).tolist()
    return found
