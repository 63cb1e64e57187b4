from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.errors import ApiError
from service.protocol.tensors import Pieces, float32_bytes, text_elements


def _pieces(data: bytes, step: int) -> Pieces:
    pieces = Pieces()
    for start in range(0, len(data), step):
        pieces.put(data[start : start + step])
    return pieces


def _lengthy(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_bytes_are_handed_out_in_the_order_in_which_they_came(step: int) -> None:
    pieces = _pieces(bytes(range(50)), step)
    assert [pieces.take(size) for size in (0, 1, 20, 29)] == [b"", b"\0", bytes(range(1, 21)), bytes(range(21, 50))]
    assert pieces.size == 0


@pytest.mark.parametrize("step", [1, 2, 5, 100])
def test_strings_are_read_each_after_its_length(step: int) -> None:
    data = _lengthy(b"one", b"", b"three")
    raw = _pieces(data + b"next", step)
    assert text_elements(raw, 3, len(data), 10, "x") == [b"one", b"", b"three"]
    assert raw.take(4) == b"next"


@pytest.mark.parametrize(
    ("data", "count", "said"),
    [
        (b"", 1, "end before the length of element 0"),
        (_lengthy(b"one") + b"\1\0\0", 2, "end before the length of element 1"),
        (b"\4\0\0\0abc", 1, "element 0 has 4 bytes, of which 3 are there"),
        (b"\xff\xff\xff\xffabc", 1, "element 0 has 4294967295 bytes, of which 3 are there"),
        (_lengthy(b"one", b"two"), 1, "7 bytes are left after its 1 elements"),
        (_lengthy(bytes(11)), 1, "element 0 has more than 10 bytes"),
    ],
)
def test_lengths_that_lie_are_refused(data: bytes, count: int, said: str) -> None:
    with pytest.raises(ApiError, match=said):
        text_elements(_pieces(data, 100), count, len(data), 10, "x")


@pytest.mark.parametrize("values", [[1, 2.5, -3, 4], [[1, 2.5], [-3, 4]], [[[1], [2.5]], [[-3], [4]]]])
def test_numbers_are_read_flat_and_nested(values: list[Any]) -> None:
    shape = np.shape(values) if isinstance(values[0], list) else (2, 2)
    assert float32_bytes(values, shape, "x") == np.array([1, 2.5, -3, 4], "<f4").tobytes()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "0 values"),
        ([1, 2, 3], "3 values"),
        ([[1, 2, 3], [4]], "not of its shape"),
        ([[1, 2], 3], "not of its shape"),
        ([[[1], [2]], [[3], [4]]], "must be numbers"),
        ([1, 2, 3, None], "must be numbers"),
        ([1, 2, 3, "4"], "must be numbers"),
        ([1, 2, 3, {}], "must be numbers"),
        (["12", "34"], "2 values"),
    ],
)
def test_what_are_no_numbers_of_its_shape_is_refused(values: list[Any], said: str) -> None:
    with pytest.raises(ApiError, match=said):
        float32_bytes(values, (2, 2), "x")


@pytest.mark.parametrize("shape", [(-1, 2), (2**62, 2**62), (0,), ()])
def test_shapes_that_cannot_be_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ApiError, match="where its shape"):
        float32_bytes([1.0, 2.0], shape, "x")
