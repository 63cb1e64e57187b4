"""The bytes of tensors: numbers in row-major order, little-endian; strings each after its length in 4 bytes.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md ("Tensor Data")
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
from array import array
from itertools import chain
from typing import Any

import numpy as np

from service.errors import ApiError

LENGTH_BYTES = 4
"""Before each element of a tensor of strings."""
NUMBER_BYTES = 4
"""Of FP32, which all numbers of inputs are."""


def invalid(why: str) -> ApiError:
    """What a request gets that the protocol does not allow, or that this model cannot be asked."""
    return ApiError(400, "invalid_inference_request", why)


def float32_bytes(values: list[Any], shape: tuple[int, ...], where: str) -> bytes:
    """The bytes of an FP32 tensor that was told as numbers, in one list or in nested ones.

    Raises:
        ApiError: they are no numbers, or of another shape.
    """
    for size in shape[1:]:
        if not (values and isinstance(values[0], list)):
            break
        if not all(isinstance(each, list) and len(each) == size for each in values):
            raise invalid(f"{where}: its lists are not of its shape {list(shape)}")
        values = list(chain.from_iterable(values))
    if len(values) != math.prod(shape):
        raise invalid(f"{where}: it has {len(values)} values, where its shape {list(shape)} has {math.prod(shape)}")
    try:
        return np.asarray(array("f", values), "<f4").tobytes()
    except (TypeError, OverflowError) as error:
        raise invalid(f"{where}: its data must be numbers") from error


class Pieces:
    """Bytes in the order in which they came, handed out so that there are never two of everything."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes] = []
        self._first = self._used = 0  # the first piece that has bytes left, and how many of it are used

    def put(self, piece: bytes) -> None:
        """Add bytes at the end."""
        self._pieces.append(piece)
        self.size += len(piece)

    def take(self, size: int) -> bytes:
        """Remove so many bytes from the beginning. There must be as many."""
        taken = []
        self.size -= size
        while size:
            piece = self._pieces[self._first]
            part = piece[self._used : self._used + size]
            taken.append(part)
            size -= len(part)
            self._used += len(part)
            if self._used == len(piece):
                self._pieces[self._first] = b""
                self._first, self._used = self._first + 1, 0
        return b"".join(taken)


def text_elements(raw: Pieces, count: int, size: int, most_bytes: int, where: str) -> list[bytes]:
    """The elements of a BYTES tensor, taken from the beginning of what came.

    Args:
        raw: has `size` bytes at least.
        count: of elements.
        size: of the tensor, in bytes.
        most_bytes: an element may have.
        where: for messages.

    Raises:
        ApiError: the elements' lengths do not add up to the tensor, or are more than allowed.
    """
    elements = []
    for index in range(count):
        if size < LENGTH_BYTES:
            raise invalid(f"{where}: its bytes end before the length of element {index}")
        length = int.from_bytes(raw.take(LENGTH_BYTES), "little")
        size -= LENGTH_BYTES
        if length > size:
            raise invalid(f"{where}: element {index} has {length} bytes, of which {size} are there")
        require_size(length, most_bytes, index, where)
        elements.append(raw.take(length))
        size -= length
    if size:
        raise invalid(f"{where}: {size} bytes are left after its {count} elements")
    return elements


def require_size(length: int, most_bytes: int, index: int, where: str) -> None:
    """Return if an image file may be so long.

    Raises:
        ApiError: it may not.
    """
    if length > most_bytes:
        raise ApiError(413, "image_too_large", f"{where}: element {index} has more than {most_bytes} bytes")
