from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, helper

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.buffers import Buffer
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layers import Weights
from service.engine.runtimes.compiled.layout import nchw, nchwc
from service.engine.runtimes.compiled.processor import host_vector_unit
from service.engine.runtimes.compiled.program import Program
from service.engine.runtimes.compiled.sliding import convolution_over
from service.engine.runtimes.compiled.stem import emit_stem, space_to_depth_weights
from service.engine.runtimes.window import Window
from tests.service.engine.runtimes.compiled.kernels import (
    BFLOAT16,
    FLOAT32,
    as_float,
    convolved,
    kept_as,
    needs_bf16,
    positions,
    run_program,
    vector,
    whole_numbers,
)

LANES = 16


def _nodes(kernel: int, stride: int, padding: int, pools: bool = False) -> list[NodeProto]:
    def node(kind: str, kernel: int, stride: int, padding: int) -> NodeProto:
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
        return helper.make_node(kind, ["x"], ["x"], **sizes)

    pooling = [node("MaxPool", 3, 2, 1)] if pools else []
    return [node("Conv", kernel, stride, padding), helper.make_node("Relu", ["x"], ["x"]), *pooling]


def _run(
    nodes: list[NodeProto], weights: Weights, image: Float32Array, element_type: ElementType, bf16_dot: bool
) -> tuple[Float32Array, bool]:
    """What the stem gives for an image, after seeing its sums, and whether that was computed in pairs."""
    program, side = Program(host_vector_unit(), LANES), image.shape[1]

    def reserve(_: str, channels: int, side: int, border: int | None) -> Buffer:
        return program.buffers.allocate(nchwc(channels, side, side, border or 0, LANES, element_type))

    features, end = emit_stem(program, nodes, weights, side, reserve, bf16_dot), vector(program, 16)
    program.fully_connected(
        Weights(np.zeros((1, 16), np.float32), np.ones(1, np.float32)), vector(program, 16), vector(program, 16)
    )
    program.finish(end, 1)
    scratch = run_program(program, image).scratch
    words = scratch[features.offset : features.offset + features.layout.size]
    kept = words.view(kept_as(element_type, words[:0]).dtype)[positions(features.layout)]
    found = as_float(element_type, kept)
    np.testing.assert_allclose(scratch[features.sums :][: len(found)], found.sum(axis=(1, 2)), rtol=0.01)
    return found, "dpbf16ps" in str(program.module)


def _expected(window: Window, weights: Weights, image: Float32Array) -> Float32Array:
    over = window.over(image.shape[1])
    source, target = nchw(3, image.shape[1], window.padding), nchwc(16, over, over, 0, LANES)
    spec = convolution_over(window, source, target, relu=True)
    return convolved(spec, image, weights, np.zeros((16, over, over), np.float32))


def _random(rng: np.random.Generator, kernel: int, side: int) -> tuple[Weights, Float32Array]:
    weights = Weights(whole_numbers(rng, 16, 3, kernel, kernel), whole_numbers(rng, 16))
    return weights, whole_numbers(rng, 3, side, side)


@needs_bf16
@pytest.mark.parametrize("element_type", [BFLOAT16, ElementType.UINT8])
@pytest.mark.parametrize(
    ("kernel", "padding"), [(7, 3), (3, 1), (5, 2), (3, 0), (4, 1), (2, 0), (6, 3)], ids=lambda number: str(number)
)
def test_every_second_pixel_is_taken_of_an_image_that_is_halved_before(
    rng: np.random.Generator, element_type: ElementType, kernel: int, padding: int
) -> None:
    weights, image = _random(rng, kernel, side=32)
    found, in_pairs = _run(_nodes(kernel, 2, padding), weights, image, element_type, bf16_dot=True)
    assert in_pairs
    expected = _expected(Window(kernel, 2, padding), weights, image)
    np.testing.assert_array_equal(found, as_float(element_type, kept_as(element_type, expected)))


@pytest.mark.parametrize(
    ("stride", "side", "bf16_dot"),
    [
        pytest.param(2, 32, False, id="no pairs"),
        pytest.param(1, 32, True, id="every pixel"),
        pytest.param(2, 24, True, id="rows that fill no vectors"),
    ],
)
def test_other_images_are_read_as_they_come(rng: np.random.Generator, stride: int, side: int, bf16_dot: bool) -> None:
    weights, image = _random(rng, 3, side)
    found, in_pairs = _run(_nodes(3, stride, 1), weights, image, FLOAT32, bf16_dot)
    assert not in_pairs
    np.testing.assert_array_equal(found, _expected(Window(3, stride, 1), weights, image))


def test_pooling_follows_where_there_is_one(rng: np.random.Generator) -> None:
    weights, image = _random(rng, 7, side=32)
    found, _ = _run(_nodes(7, 2, 3, pools=True), weights, image, FLOAT32, bf16_dot=False)
    whole = np.pad(_expected(Window(7, 2, 3), weights, image), ((0, 0), (1, 1), (1, 1)))
    windows = [whole[:, down : down + 16 : 2, right : right + 16 : 2] for down in range(3) for right in range(3)]
    np.testing.assert_array_equal(found, np.max(windows, axis=0))


@pytest.mark.parametrize(("size", "lead", "half"), [(7, 1, 4), (7, 0, 4), (3, 1, 2), (2, 0, 1), (2, 1, 2), (1, 1, 1)])
def test_halved_filter_has_the_same_weights_and_zeros(
    rng: np.random.Generator, size: int, lead: int, half: int
) -> None:
    weight = rng.standard_normal((16, 3, size, size)).astype(np.float32)
    found = space_to_depth_weights(weight, lead)
    assert found.shape == (16, 12, half, half)
    for (output, colour, row, column), value in np.ndenumerate(weight):
        (down, right), (y, x) = ((row + lead) % 2, (column + lead) % 2), ((row + lead) // 2, (column + lead) // 2)
        assert found[output, 4 * colour + 2 * down + right, y, x] == value
    assert np.count_nonzero(found) == np.count_nonzero(weight)
