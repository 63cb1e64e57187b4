from __future__ import annotations

from dataclasses import replace

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.convolution_kernel import emit_convolution
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layers import Weights
from service.engine.runtimes.compiled.layout import nchw, nchwc
from service.engine.runtimes.compiled.processor import VectorUnit
from service.engine.runtimes.data_caches import Caches
from tests.service.engine.runtimes.compiled.kernels import (
    assert_convolves,
    convolution,
    convolved,
    random_weights,
    run_convolution,
    whole_numbers,
)

CACHES = Caches()
NARROW, MIDDLE, WIDE = VectorUnit(4, 16), VectorUnit(8, 16), VectorUnit(16, 32)
EVERY = pytest.mark.parametrize("vectors", [NARROW, MIDDLE, WIDE], ids=str)


@EVERY
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_filters_of_every_kind_give_what_numpy_gives(
    rng: np.random.Generator, vectors: VectorUnit, kernel: int, stride: int
) -> None:
    assert_convolves(convolution(vectors, 1, 2, 7, kernel, stride, relu=True, pools=True), vectors, rng)


@EVERY
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 2, 3), (3, 1, 1), (3, 1, 0), (1, 2, 0)])
def test_image_is_read_as_it_comes(
    rng: np.random.Generator, vectors: VectorUnit, kernel: int, stride: int, padding: int
) -> None:
    side = (12 + 2 * padding - kernel) // stride + 1
    target = nchwc(2 * vectors.lanes, side, side, 1, vectors.lanes)
    assert_convolves(Convolution(kernel, stride, padding, nchw(3, 12, padding), target, relu=True), vectors, rng)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("pools", [False, True])
def test_what_comes_after_is_done_where_it_is_asked_for(
    rng: np.random.Generator, relu: bool, residual: bool, pools: bool
) -> None:
    assert_convolves(convolution(MIDDLE, 2, 2, 5, relu=relu, residual=residual, pools=pools), MIDDLE, rng)


@pytest.mark.parametrize(
    ("vectors", "width"),
    [
        *((MIDDLE, width) for width in (1, 5, 6, 7, 12, 13, 29)),
        *((VectorUnit(8, 32), width) for width in (13, 14, 15, 29)),
    ],
    ids=str,
)
def test_rows_of_every_width_are_cut_without_a_gap(rng: np.random.Generator, vectors: VectorUnit, width: int) -> None:
    assert_convolves(convolution(vectors, 1, 2, width, height=2, pools=True), vectors, rng)


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
def test_vectors_of_outputs_that_cannot_be_paired_are_computed_alone(rng: np.random.Generator, outputs: int) -> None:
    assert_convolves(convolution(MIDDLE, 1, outputs, 6, pools=True), MIDDLE, rng)


@pytest.mark.parametrize("side", [2, 7, 14, 15])
@pytest.mark.parametrize("borders", [(0, 0), (1, 0), (0, 1), (1, 1)], ids=str)
def test_rows_are_joined_only_where_nothing_lies_between(
    rng: np.random.Generator, side: int, borders: tuple[int, int]
) -> None:
    spec = convolution(MIDDLE, 2, 1, side, kernel=1, borders=borders, residual=True, relu=True, pools=True)
    assert_convolves(spec, MIDDLE, rng)


@pytest.mark.parametrize(("borders", "width"), [((0, 0), 49), ((0, 1), 7), ((1, 0), 7)], ids=str)
def test_joined_rows_are_cut_into_tiles_as_one(borders: tuple[int, int], width: int) -> None:
    spec, module = convolution(MIDDLE, 1, 1, 7, kernel=1, borders=borders), ir.Module("test")
    emit_convolution(module, "kernel", spec, MIDDLE)
    products = sum(pixels for _, pixels in spec.tiles(width, MIDDLE.registers)) * MIDDLE.lanes
    assert str(module).count('call <8 x float> @"llvm.fmuladd') == products


def test_every_second_pixel_of_features_without_a_border_is_not_joined(rng: np.random.Generator) -> None:
    assert_convolves(convolution(MIDDLE, 2, 2, 14, kernel=1, stride=2, borders=(0, 0)), MIDDLE, rng)


@pytest.mark.parametrize(
    ("vectors", "inputs", "kernel", "parts"),
    [
        pytest.param(MIDDLE, 14, 3, 1, id="whole"),
        pytest.param(WIDE, 2, 7, 2, id="first and last"),
        pytest.param(MIDDLE, 15, 3, 3, id="one in the middle"),
        pytest.param(MIDDLE, 16, 3, 4, id="two in the middle"),
        pytest.param(MIDDLE, 17, 3, 17, id="of single blocks"),
    ],
)
@pytest.mark.parametrize("residual", [False, True])
def test_weights_that_are_read_in_parts_are_all_added_once(
    rng: np.random.Generator, vectors: VectorUnit, inputs: int, kernel: int, parts: int, residual: bool
) -> None:
    spec = convolution(vectors, inputs, 2, 3, kernel, relu=True, residual=residual, pools=True)
    assert inputs // spec.reduction_block(CACHES) == parts
    assert_convolves(spec, vectors, rng)


@pytest.mark.parametrize(
    ("height", "width", "rows"),
    [
        pytest.param(8, 8, 8, id="all"),
        pytest.param(64, 64, 32, id="two chunks"),
        pytest.param(7, 1000, 1, id="one by one"),
        pytest.param(9, 1000, 3, id="three chunks"),
    ],
)
def test_rows_that_are_done_in_chunks_are_all_done_once(
    rng: np.random.Generator, height: int, width: int, rows: int
) -> None:
    spec = convolution(MIDDLE, 1, 1, width, kernel=1, height=height, residual=True, pools=True)
    assert spec.row_block(CACHES) == rows
    assert_convolves(spec, MIDDLE, rng)


def test_rows_in_chunks_and_weights_in_parts_go_together(rng: np.random.Generator) -> None:
    spec = convolution(MIDDLE, 15, 2, 60, height=6, residual=True, pools=True, relu=True)
    assert (spec.row_block(CACHES), spec.reduction_block(CACHES)) == (3, 5)
    assert_convolves(spec, MIDDLE, rng)


@EVERY
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (2, 8), (3, 12), (2, 7), (1, 11), (40, 8)])
def test_single_pixel_is_a_fully_connected_layer(
    rng: np.random.Generator, vectors: VectorUnit, inputs: int, outputs: int
) -> None:
    spec = convolution(vectors, inputs, outputs, 1, kernel=1, borders=(0, 0), relu=True)
    assert_convolves(spec, vectors, rng)


@pytest.mark.parametrize("inputs", [1, 15], ids=["whole", "in parts"])
def test_what_is_no_number_reaches_all_it_belongs_to_and_nothing_else(rng: np.random.Generator, inputs: int) -> None:
    spec = convolution(MIDDLE, inputs, 2, 6, relu=True, pools=True)
    features = whole_numbers(rng, 8 * inputs, 6, 6)
    features[5, 2, 3] = np.nan
    weights, before = random_weights(rng, spec), np.zeros((16, 6, 6), np.float32)
    output, sums = run_convolution(spec, MIDDLE, features, weights, before)
    assert np.isnan(output[:, 1:4, 2:5]).all()
    np.testing.assert_array_equal(output, convolved(spec, features, weights, before))
    assert np.isnan(sums).all()


def test_negative_infinity_and_zero_pass_the_relu_as_zero() -> None:
    spec = convolution(MIDDLE, 1, 1, 1, kernel=1, borders=(0, 0), relu=True)
    zeros = np.zeros((8, 1, 1), np.float32)
    bias = np.array([-np.inf, np.inf, -0.0, 0, -1, 1, np.nan, 2], np.float32)
    output, _ = run_convolution(spec, MIDDLE, zeros, Weights(np.zeros((8, 8, 1, 1), np.float32), bias), zeros)
    np.testing.assert_array_equal(output.ravel(), [0, np.inf, 0, 0, 0, 1, np.nan, 2])


def test_sums_are_of_this_call_alone(rng: np.random.Generator) -> None:
    spec = convolution(MIDDLE, 1, 2, 4, pools=True)
    for _ in range(2):
        assert_convolves(spec, MIDDLE, rng)
    # The same without: the sums' place is left alone, which `run_convolution` sees.
    assert_convolves(replace(spec, pools=False), MIDDLE, rng)


def _promised(spec: Convolution) -> list[list[str]]:
    """The attributes of the kernel's arguments: input, weights, what is added, output and sums."""
    module = ir.Module("test")
    emit_convolution(module, "kernel", spec, MIDDLE)
    module = llvm.parse_assembly(str(module))
    return [[attribute.decode() for attribute in each.attributes] for each in module.get_function("kernel").arguments]


READ = ["align 64", "captures(none)", "noalias", "readonly"]
WRITTEN = ["align 64", "captures(none)", "noalias"]


def test_every_address_is_promised_to_be_of_a_region_of_its_own() -> None:
    for residual in (
        False,
        ElementType.UINT8,
    ):  # nothing, or features of another layout, which are not in the output's place
        found = [sorted(each) for each in _promised(convolution(MIDDLE, 1, 1, 4, residual=residual))]
        assert found == [READ, READ, READ, WRITTEN, WRITTEN]


def test_output_that_is_added_to_in_its_place_is_not_promised_to_be_apart() -> None:
    found = [sorted(each) for each in _promised(convolution(MIDDLE, 1, 1, 4, residual=True))]
    apart = [name for name in READ if name != "noalias"], [name for name in WRITTEN if name != "noalias"]
    assert found == [READ, READ, *apart, WRITTEN]
