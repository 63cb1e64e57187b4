"""Kernels for features in fewer than 32 bits, which only some processors can run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from llvmlite import ir

from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.convolution_kernel import emit_convolution
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layers import Weights
from service.engine.runtimes.compiled.layout import nchw, nchwc
from service.engine.runtimes.compiled.pooling import MaxPool, emit_max_pool
from service.engine.runtimes.compiled.processor import VectorUnit, host_vector_unit
from service.engine.runtimes.data_caches import Caches
from tests.service.engine.runtimes.compiled.kernels import (
    BFLOAT16,
    FLOAT32,
    UINT8,
    as_float,
    assert_convolves,
    convolution,
    convolved,
    kept_as,
    needs_bf16,
    needs_int8,
    run_convolution,
    run_max_pool,
    whole_numbers,
)

CACHES = Caches()
WIDE = VectorUnit(16, 32, host_vector_unit().bf16_dot, host_vector_unit().int8_dot)
TO_AND_FROM = [
    pytest.param((BFLOAT16, BFLOAT16), marks=needs_bf16, id="bfloat16"),
    pytest.param((BFLOAT16, UINT8), marks=needs_bf16, id="bfloat16 to 8 bits"),
    pytest.param((UINT8, UINT8), marks=needs_int8, id="8 bits"),
    pytest.param((UINT8, BFLOAT16), marks=[needs_int8, needs_bf16], id="8 bits to bfloat16"),
    pytest.param((UINT8, FLOAT32), marks=needs_int8, id="8 bits to float32"),
    pytest.param((FLOAT32, BFLOAT16), marks=needs_bf16, id="float32 to bfloat16"),
    pytest.param((FLOAT32, UINT8), id="float32 to 8 bits"),
]
EVERY = pytest.mark.parametrize("element_types", TO_AND_FROM)
EVERY_LOW = pytest.mark.parametrize("element_type", [pytest.param(BFLOAT16, marks=needs_bf16), UINT8])


@EVERY
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_filters_of_every_kind_give_what_numpy_gives(
    rng: np.random.Generator, element_types: tuple[ElementType, ElementType], kernel: int, stride: int
) -> None:
    spec = convolution(WIDE, 2, 3, 7, kernel, stride, element_types=element_types, relu=True, pools=True)
    assert_convolves(spec, WIDE, rng)


@EVERY
@pytest.mark.parametrize("side", [5, 16])
def test_output_is_added_to_what_is_in_its_place(
    rng: np.random.Generator, element_types: tuple[ElementType, ElementType], side: int
) -> None:
    assert_convolves(
        convolution(WIDE, 1, 2, side, element_types=element_types, residual=True, relu=True, pools=True), WIDE, rng
    )


@EVERY
@pytest.mark.parametrize("apart", list(ElementType))
@pytest.mark.parametrize(("kernel", "borders"), [(1, (0, 0)), (3, (1, 1))], ids=["joined rows", "rows with a border"])
def test_output_is_added_to_what_is_elsewhere_in_numbers_of_its_own(
    rng: np.random.Generator,
    element_types: tuple[ElementType, ElementType],
    apart: ElementType,
    kernel: int,
    borders: tuple[int, int],
) -> None:
    spec = convolution(
        WIDE, 2, 2, 6, kernel, element_types=element_types, borders=borders, residual=apart, relu=True, pools=True
    )
    assert_convolves(spec, WIDE, rng)


@EVERY
def test_many_weights_are_read_at_once_where_sums_would_be_rounded_in_between(
    rng: np.random.Generator, element_types: tuple[ElementType, ElementType]
) -> None:
    spec = convolution(WIDE, 9, 2, 4, element_types=element_types, relu=True, residual=True)
    assert spec.reduction_block(CACHES) == 9
    assert replace(spec, source=nchwc(144, 4, 4, 1, 16), target=nchwc(32, 4, 4, 1, 16)).reduction_block(CACHES) == 1
    assert_convolves(spec, WIDE, rng)


@EVERY_LOW
def test_image_is_read_as_it_comes(rng: np.random.Generator, element_type: ElementType) -> None:
    spec = Convolution(3, 1, 1, nchw(3, 12, 1), nchwc(32, 12, 12, 1, 16, element_type), relu=True, pools=True)
    assert_convolves(spec, WIDE, rng)


@needs_int8
def test_sums_of_the_largest_products_do_not_saturate() -> None:
    spec = convolution(WIDE, 32, 1, 3, kernel=1, borders=(0, 0), element_types=(UINT8, FLOAT32))
    features = np.full((512, 3, 3), 255, np.float32)
    weight = np.full((16, 512, 1, 1), 127, np.int8)
    weight[1::2] = -127
    weights = Weights(weight, np.zeros(16, np.float32), np.full(16, 2.0, np.float32))
    output, _ = run_convolution(spec, WIDE, features, weights, np.zeros((16, 3, 3), np.float32))
    np.testing.assert_array_equal(output[0], 2 * 512 * 255 * 127)
    np.testing.assert_array_equal(output[1], -2 * 512 * 255 * 127)


@needs_bf16
def test_products_of_bfloat16_are_summed_in_float32(rng: np.random.Generator) -> None:
    spec = convolution(WIDE, 4, 2, 5, element_types=(BFLOAT16, FLOAT32))
    features, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 5, 5), (32, 64, 3, 3)))
    zeros = np.zeros((32, 5, 5), np.float32)
    output, _ = run_convolution(spec, WIDE, features, Weights(weight, zeros[:, 0, 0]), zeros)
    rounded, rounded_weight = (as_float(BFLOAT16, kept_as(BFLOAT16, each)) for each in (features, weight))
    exact = convolved(spec, rounded, Weights(rounded_weight, zeros[:, 0, 0]), zeros)
    np.testing.assert_allclose(output, exact, atol=1e-4)
    assert np.abs(exact - convolved(spec, features, Weights(weight, zeros[:, 0, 0]), zeros)).max() > 1e-3


@EVERY_LOW
@pytest.mark.parametrize(("side", "padding"), [(8, 1), (7, 1), (6, 0)])
def test_pooling_gives_what_it_gives_in_float32(
    rng: np.random.Generator, element_type: ElementType, side: int, padding: int
) -> None:
    over = (side + 2 * padding - 3) // 2 + 1
    whole = MaxPool(3, 2, padding, nchwc(32, side, side, padding, 16), nchwc(32, over, over, 1, 16))
    kept = replace(
        whole,
        source=nchwc(32, side, side, padding, 16, element_type),
        target=nchwc(32, over, over, 1, 16, element_type),
    )
    features = 50 * whole_numbers(rng, 32, side, side, least=0)
    for found, expected in zip(run_max_pool(kept, features), run_max_pool(whole, features), strict=True):
        np.testing.assert_array_equal(found, expected)


PLAIN = VectorUnit(16, 32)
WITH_BF16, WITH_INT8 = replace(PLAIN, bf16_dot=True), replace(PLAIN, int8_dot=True)
LACKING = [
    pytest.param(PLAIN, (BFLOAT16, FLOAT32), "no bf16", id="products of bfloat16"),
    pytest.param(WITH_INT8, (BFLOAT16, UINT8), "no bf16", id="products of bfloat16, with those of 8 bits"),
    pytest.param(WITH_INT8, (FLOAT32, BFLOAT16), "no bf16", id="output in bfloat16"),
    pytest.param(WITH_INT8, (UINT8, BFLOAT16), "no bf16", id="output of 8 bits in bfloat16"),
    pytest.param(PLAIN, (UINT8, FLOAT32), "no int8", id="products of 8 bits"),
    pytest.param(WITH_BF16, (UINT8, UINT8), "no int8", id="products of 8 bits, with those of bfloat16"),
    pytest.param(replace(WITH_BF16, lanes=8), (BFLOAT16, FLOAT32), "16 lanes, not of 8", id="narrower bfloat16"),
    pytest.param(replace(WITH_INT8, lanes=8), (UINT8, FLOAT32), "16 lanes, not of 8", id="narrower 8 bits"),
]


@pytest.mark.parametrize(("vectors", "element_types", "problem"), LACKING)
def test_kernel_for_instructions_that_the_processor_lacks_is_not_emitted(
    vectors: VectorUnit, element_types: tuple[ElementType, ElementType], problem: str
) -> None:
    spec = convolution(vectors, 1, 1, 4, element_types=element_types)
    with pytest.raises(RuntimeUnavailable, match=problem):
        emit_convolution(ir.Module("test"), "kernel", spec, vectors)


def test_pooling_into_bfloat16_is_not_emitted_for_a_processor_that_cannot_convert_to_it() -> None:
    layouts = nchwc(16, 4, 4, 1, 16, BFLOAT16), nchwc(16, 2, 2, 1, 16, BFLOAT16)
    with pytest.raises(RuntimeUnavailable, match="no bf16"):
        emit_max_pool(ir.Module("test"), "kernel", MaxPool(3, 2, 1, *layouts), PLAIN)
