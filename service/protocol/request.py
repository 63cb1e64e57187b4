"""A request for inference as the protocol has it, and what of it can be asked of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from artifact.manifest import Manifest
from service.classify.budgets import budget_in
from service.classify.uploads import Upload
from service.errors import ApiError
from service.protocol.signature import ENCODED, GATE_OFFSET, IMAGES, TensorSpec, inputs_of, outputs_of
from service.protocol.tensors import LENGTH_BYTES, NUMBER_BYTES, Pieces, invalid, require_size, text_elements

Parameter = bool | int | float | str
_LONGEST_ID = 256


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input.

    Attributes:
        name, datatype, shape: as the client says.
        data: the bytes of an FP32 tensor, or the elements of a BYTES tensor; None where they follow the request's
            description as raw bytes.
        raw_bytes: how many follow.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | list[bytes] | None
    raw_bytes: int = 0

    @property
    def where(self) -> str:
        """For messages; a name can be of any length."""
        return f"input {self.name[:80]!r}"


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a client asks.

    Attributes:
        id: that its answer repeats; empty where there is none.
        inputs: in the order in which their raw bytes follow.
        outputs: that are wanted; all where there are none.
        parameters: of the request.
    """

    id: str
    inputs: Sequence[InputTensor]
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def raw_bytes(self) -> int:
        """How many follow its description."""
        return sum(each.raw_bytes for each in self.inputs)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the service: images in a request, bytes of an image file."""

    most_images: int
    most_image_bytes: int


class Inference:
    """A request that a model can be asked.

    Args:
        request: as it was described.
        manifest: of the model.
        limits: of the service.

    Attributes:
        request: the same.
        outputs: that are wanted, in order.

    Raises:
        ApiError: the model cannot be asked this.
    """

    def __init__(self, request: InferenceRequest, manifest: Manifest, limits: Limits) -> None:
        if len(request.id) > _LONGEST_ID:
            raise invalid(f"the id has more than {_LONGEST_ID} characters")
        self.request = request
        self._limits = limits
        known = {spec.name: spec for spec in inputs_of(manifest)}
        _require_names("input", [each.name for each in request.inputs], known)
        inputs = {each.name: each for each in request.inputs}
        if (ENCODED in inputs) == (IMAGES in inputs):
            raise invalid(f"send either {ENCODED!r} or {IMAGES!r}")
        images = inputs.get(ENCODED) or inputs[IMAGES]
        self._count = images.shape[0] if images.shape else 0
        for each in request.inputs:
            self._require(each, known[each.name])
        self._budget, self._may_degrade = _wishes(request.parameters)
        if GATE_OFFSET in inputs and self._budget is not None:
            raise invalid(f"send either the input {GATE_OFFSET!r} or the parameter 'budget'")
        possible = [spec.name for spec in outputs_of(manifest)]
        _require_names("output", request.outputs, possible)
        self.outputs = list(request.outputs) or possible

    def uploads(self, raw: Pieces) -> list[Upload]:
        """The images.

        Args:
            raw: the bytes that followed the description.

        Raises:
            ApiError: they are not as described.
        """
        if raw.size != self.request.raw_bytes:
            raise invalid(f"{raw.size} bytes of binary data came, where the inputs have {self.request.raw_bytes}")
        files: list[bytes] = []
        offsets: list[float | None] = [None] * self._count
        for each in self.request.inputs:
            if each.name == GATE_OFFSET:
                offsets = _finite(_numbers(each, raw), each.where)
            elif each.name == ENCODED:
                files = self._files(each, raw)
            else:
                files = self._slices(each, raw)
        is_tensor = not any(each.name == ENCODED for each in self.request.inputs)
        return [
            Upload(None, file, self._budget, is_tensor, offset, self._may_degrade)
            for file, offset in zip(files, offsets, strict=True)
        ]

    def _require(self, tensor: InputTensor, spec: TensorSpec) -> None:
        """Return if a tensor is as the model takes it, as far as can be told before its bytes are there."""
        where, count, limits = tensor.where, self._count, self._limits
        if tensor.datatype != spec.datatype:
            raise invalid(f"{where}: its datatype must be {spec.datatype}, not {tensor.datatype[:20]!r}")
        if len(tensor.shape) != len(spec.shape) or tensor.shape[1:] != spec.shape[1:] or tensor.shape[0] < 1:
            raise invalid(f"{where}: its shape must be {list(spec.shape)}, with at least 1 in place of -1")
        if tensor.shape[0] != count:
            raise invalid(f"{where}: it is for {tensor.shape[0]} images, where there are {count}")
        if count > limits.most_images:
            raise invalid(f"a request may have at most {limits.most_images} images, not {count}")
        if spec.datatype == "BYTES":
            _require_elements(tensor, count, limits)
            return
        size = math.prod(tensor.shape) * NUMBER_BYTES
        has = tensor.raw_bytes if tensor.data is None else len(tensor.data)
        if has != size:
            raise invalid(f"{where}: it has {has} bytes, where its shape {list(tensor.shape)} has {size}")

    def _files(self, tensor: InputTensor, raw: Pieces) -> list[bytes]:
        if isinstance(tensor.data, list):
            return tensor.data
        return text_elements(raw, self._count, tensor.raw_bytes, self._limits.most_image_bytes, tensor.where)

    def _slices(self, tensor: InputTensor, raw: Pieces) -> list[bytes]:
        """The bytes of each image of a tensor."""
        size = math.prod(tensor.shape[1:]) * NUMBER_BYTES
        if isinstance(tensor.data, bytes):
            return [tensor.data[start : start + size] for start in range(0, len(tensor.data), size)]
        return [raw.take(size) for _ in range(self._count)]


def _require_names(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Return if all names are known and none is there twice."""
    seen = set()
    for name in names:
        if name not in known:
            raise invalid(f"there is no {what} {name[:80]!r}; there are {', '.join(known)}")
        if name in seen:
            raise invalid(f"the {what} {name!r} is there twice")
        seen.add(name)


def _require_elements(tensor: InputTensor, count: int, limits: Limits) -> None:
    if isinstance(tensor.data, list):
        if len(tensor.data) != count:
            raise invalid(f"{tensor.where}: it has {len(tensor.data)} elements, where its shape has {count}")
        for index, element in enumerate(tensor.data):
            require_size(len(element), limits.most_image_bytes, index, tensor.where)
    elif tensor.raw_bytes > count * (LENGTH_BYTES + limits.most_image_bytes):
        said = f"{tensor.where}: it has {tensor.raw_bytes} bytes; an image may have {limits.most_image_bytes}"
        raise ApiError(413, "image_too_large", said)


def _wishes(parameters: Mapping[str, Parameter]) -> tuple[float | None, bool]:
    """The budget that a request's parameters ask for, and whether it may be undercut."""
    for name in parameters:
        if name not in {"budget", "degrade"}:
            raise invalid(f"there is no parameter {name[:80]!r}; there are budget, degrade")
    degrade = parameters.get("degrade", "allow")
    if degrade not in {"allow", "never"}:
        raise invalid("the parameter 'degrade' must be allow or never")
    budget = parameters.get("budget")
    if budget is None:
        return None, degrade == "allow"
    if isinstance(budget, bool):
        raise invalid("the parameter 'budget' must be a number")
    return budget_in(str(budget), "the parameter 'budget'"), degrade == "allow"


def _numbers(tensor: InputTensor, raw: Pieces) -> bytes:
    return tensor.data if isinstance(tensor.data, bytes) else raw.take(tensor.raw_bytes)


def _finite(data: bytes, where: str) -> list[float | None]:
    numbers: list[float | None] = np.frombuffer(data, "<f4").tolist()
    if not np.isfinite(np.frombuffer(data, "<f4")).all():
        raise invalid(f"{where}: it has values that are no finite numbers")
    return numbers
