"""The protocol's messages, from and to what the service itself calls tensors, models and states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from service.grpc.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
)
from service.protocol.answer import DATATYPES, DEGRADED, InferenceAnswer
from service.protocol.metadata import ModelMetadata, ModelState, ServerMetadata
from service.protocol.request import InferenceRequest, InputTensor, Parameter
from service.protocol.signature import TensorSpec
from service.protocol.tensors import LENGTH_BYTES, NUMBER_BYTES, invalid

_MOST_TENSORS = 16
_CONTENTS = {"FP32": "fp32_contents", "BOOL": "bool_contents", "INT64": "int64_contents"}


def read_request(message: ModelInferRequest) -> InferenceRequest:
    """The request that a message describes.

    Raises:
        ApiError: it describes none.
    """
    if len(message.inputs) > _MOST_TENSORS or len(message.outputs) > _MOST_TENSORS:
        raise invalid(f"a request may have at most {_MOST_TENSORS} inputs and outputs")
    # KServe's client sends here too what says in JSON which bytes follow, and whether they are wanted.
    for input_ in message.inputs:
        require_parameters(input_.name, input_.parameters, "binary_data_size")
    for output in message.outputs:
        require_parameters(output.name, output.parameters, "binary_data")
    if message.raw_input_contents:
        if len(message.raw_input_contents) != len(message.inputs):
            raise invalid("there must be as many raw_input_contents as inputs")
        if any(each.HasField("contents") for each in message.inputs):
            raise invalid("send either contents or raw_input_contents")
        sizes = [len(each) for each in message.raw_input_contents]
    else:
        sizes = [_size(each) for each in message.inputs]
    inputs = [
        InputTensor(each.name, each.datatype, tuple(each.shape), None, size)
        for each, size in zip(message.inputs, sizes, strict=True)
    ]
    parameters = {name: _parameter(name, value) for name, value in message.parameters.items()}
    return InferenceRequest(message.id, inputs, [each.name for each in message.outputs], parameters)


def raw_bytes(message: ModelInferRequest) -> list[bytes]:
    """The raw bytes of each input of a message that has been read."""
    return list(message.raw_input_contents) or [_raw(each) for each in message.inputs]


def require_parameters(name: str, parameters: Iterable[str], known: str) -> None:
    """Return if something has no other parameter than one that is known.

    Raises:
        ApiError: it has another.
    """
    if unknown := next((each for each in parameters if each != known), None):
        raise invalid(f"{name[:80]!r}: there is no parameter {unknown[:80]!r}")


def _size(tensor: ModelInferRequest.InferInputTensor) -> int:
    """How many raw bytes the elements in the contents of a tensor are."""
    where, contents = f"input {tensor.name[:80]!r}", tensor.contents
    known = {"FP32": "fp32_contents", "BYTES": "bytes_contents"}
    if tensor.datatype not in known:
        raise invalid(f"{where}: its datatype must be BYTES or FP32, not {tensor.datatype[:20]!r}")
    if {field.name for field, _ in contents.ListFields()} - {known[tensor.datatype]}:
        raise invalid(f"{where}: its contents must be {known[tensor.datatype]}")
    if tensor.datatype == "FP32":
        return NUMBER_BYTES * len(contents.fp32_contents)
    return sum(LENGTH_BYTES + len(each) for each in contents.bytes_contents)


def _raw(tensor: ModelInferRequest.InferInputTensor) -> bytes:
    """The raw bytes of a tensor whose elements stand in its contents."""
    contents = tensor.contents
    if tensor.datatype == "FP32":
        return np.array(contents.fp32_contents, "<f4").tobytes()
    return b"".join(len(each).to_bytes(LENGTH_BYTES, "little") + each for each in contents.bytes_contents)


def _parameter(name: str, value: InferParameter) -> Parameter:
    kind = value.WhichOneof("parameter_choice")
    if kind is None:
        raise invalid(f"the parameter {name[:80]!r} has no value")
    found: Parameter = getattr(value, kind)
    return found


def answer_message(answer: InferenceAnswer, *, raw: bool) -> ModelInferResponse:
    """The answer to a request; with raw bytes where the request had them."""
    message = ModelInferResponse(model_name=answer.model, model_version=answer.version, id=answer.id)
    if answer.degraded:
        message.parameters[DEGRADED].bool_param = True
    for name, values in answer.outputs.items():
        datatype = DATATYPES[values.dtype.kind]
        output = message.outputs.add(name=name, datatype=datatype, shape=values.shape)
        if raw:
            message.raw_output_contents.append(values.tobytes())
        else:
            contents: Any = {_CONTENTS[datatype]: values.ravel().tolist()}
            output.contents.CopyFrom(InferTensorContents(**contents))
    return message


def server_message(metadata: ServerMetadata) -> ServerMetadataResponse:
    """What the server is."""
    return ServerMetadataResponse(name=metadata.name, version=metadata.version, extensions=metadata.extensions)


def model_message(metadata: ModelMetadata) -> ModelMetadataResponse:
    """What a model takes and gives."""
    return ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=_specs(metadata.inputs),
        outputs=_specs(metadata.outputs),
    )


def _specs(specs: Iterable[TensorSpec]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(name=each.name, datatype=each.datatype, shape=each.shape) for each in specs
    ]


def index_message(states: Iterable[ModelState]) -> RepositoryIndexResponse:
    """The models that are served."""
    models = [
        RepositoryIndexResponse.ModelIndex(name=each.name, version=each.version, state=each.state, reason=each.reason)
        for each in states
    ]
    return RepositoryIndexResponse(models=models)
