"""The protocol's JSON, and raw bytes beside it.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.classify.json_text import decoded_base64
from service.protocol.answer import DATATYPES, DEGRADED, InferenceAnswer
from service.protocol.request import InferenceRequest, InputTensor, Parameter
from service.protocol.tensors import float32_bytes, invalid

BINARY_HEADER = "Inference-Header-Content-Length"
_MOST_DIMENSIONS, _MOST_TENSORS = 8, 16

_Parameters = dict[str, Parameter]
_Shape = Annotated[list[int], Field(max_length=_MOST_DIMENSIONS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _Input(_Strict):
    name: str
    shape: _Shape
    datatype: str
    parameters: _Parameters = {}
    data: Any = None  # left as it is: there may be much of it


class _Output(_Strict):
    name: str
    parameters: _Parameters = {}


class _Request(_Strict):
    model_name: str = ""  # which KServe's client sends too; the path says it
    id: str = ""
    parameters: _Parameters = {}
    inputs: Annotated[list[_Input], Field(max_length=_MOST_TENSORS)]
    outputs: Annotated[list[_Output], Field(max_length=_MOST_TENSORS)] = []


def read_request(said: object, most_images: int) -> tuple[InferenceRequest, frozenset[str] | None]:
    """The request that JSON describes, and which outputs are wanted as raw bytes; None where all are.

    Args:
        said: by the JSON.
        most_images: that a request may have.

    Raises:
        ApiError: it describes none.
    """
    try:
        request = _Request.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:80] for part in first["loc"])
        raise invalid(f"{where}: {first['msg']}" if where else first["msg"]) from error
    all_binary = _flag(request.parameters, "binary_data_output", "the request")
    binary = [each.name for each in request.outputs if _is_binary(each, all_binary)]
    inputs, outputs = [_tensor(each, most_images) for each in request.inputs], [each.name for each in request.outputs]
    asked = InferenceRequest(request.id, inputs, outputs, request.parameters)
    return asked, None if all_binary and not outputs else frozenset(binary)


def _tensor(described: _Input, most_images: int) -> InputTensor:
    where = f"input {described.name[:80]!r}"
    shape, data = tuple(described.shape), described.data
    raw_bytes = described.parameters.pop("binary_data_size", None)
    _require_none_left(described.parameters, where)
    if (raw_bytes is None) == (data is None):
        raise invalid(f"{where}: it must have either data or the parameter 'binary_data_size'")
    if data is None:
        if isinstance(raw_bytes, bool) or not isinstance(raw_bytes, int) or raw_bytes < 0:
            raise invalid(f"{where}: the parameter 'binary_data_size' must be a whole number")
        return InputTensor(described.name, described.datatype, shape, None, raw_bytes)
    if not isinstance(data, list):
        raise invalid(f"{where}: its data must be a list")
    if described.datatype == "BYTES":
        if len(data) > most_images:
            raise invalid(f"a request may have at most {most_images} images, not {len(data)}")
        files = [decoded_base64(each, f"{where}: element {index}") for index, each in enumerate(data)]
        return InputTensor(described.name, "BYTES", shape, files)
    if described.datatype == "FP32":
        return InputTensor(described.name, "FP32", shape, float32_bytes(data, shape, where))
    raise invalid(f"{where}: its datatype must be BYTES or FP32, not {described.datatype[:20]!r}")


def _is_binary(output: _Output, default: bool) -> bool:
    where = f"output {output.name[:80]!r}"
    flag = _flag(output.parameters, "binary_data", where, default)
    _require_none_left(output.parameters, where)
    return flag


def _flag(parameters: _Parameters, name: str, where: str, default: bool = False) -> bool:
    """Take a flag out of parameters."""
    value = parameters.pop(name, default)
    if not isinstance(value, bool):
        raise invalid(f"{where}: the parameter {name!r} must be true or false")
    return value


def _require_none_left(parameters: _Parameters, where: str) -> None:
    if parameters:
        raise invalid(f"{where}: there is no parameter {next(iter(parameters))[:80]!r}")


def write_answer(answer: InferenceAnswer, binary: Set[str] | None) -> tuple[bytes, int | None]:
    """The body of an answer.

    Args:
        answer: to a request.
        binary: outputs that are wanted as raw bytes; None for all.

    Returns:
        The body, and how much of it is JSON where raw bytes follow.
    """
    described, raw = [], []
    for name, values in answer.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": DATATYPES[values.dtype.kind], "shape": list(values.shape)}
        if binary is None or name in binary:
            raw.append(values.tobytes())
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = values.ravel()
        described.append(output)
    said: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version, "outputs": described}
    if answer.id:
        said["id"] = answer.id
    if answer.degraded:
        said["parameters"] = {DEGRADED: True}
    told = orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([told, *raw]), len(told)) if raw else (told, None)


def write_error(_type: str, message: str, _request_id: str) -> bytes:
    """The body of an error, which has nothing but a message."""
    return orjson.dumps({"error": message})
