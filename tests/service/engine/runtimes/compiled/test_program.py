from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
import pytest

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.layers import Weights
from service.engine.runtimes.compiled.layout import nchw, nchwc
from service.engine.runtimes.compiled.pooling import MaxPool
from service.engine.runtimes.compiled.processor import VectorUnit
from service.engine.runtimes.compiled.program import ENTRY, Program
from tests.service.engine.runtimes.compiled.kernels import (
    Answer,
    laid_out,
    positions,
    run_program,
    vector,
    whole_numbers,
)

LANES = 8


@pytest.fixture
def program() -> Program:
    return Program(VectorUnit(lanes=16, registers=32), LANES)


def _constant(values: list[float]) -> Weights:
    """Of a layer that gives these numbers for a vector of zeros."""
    return Weights(np.zeros((len(values), LANES), np.float32), np.array(values, np.float32))


def test_image_is_copied_to_where_it_has_a_border(program: Program, rng: np.random.Generator) -> None:
    buffer = program.buffers.allocate(nchw(3, 5, 2))
    program.load_image(buffer)
    program.fully_connected(_constant([1]), vector(program, LANES), logit := vector(program, LANES))
    program.finish(logit, 1)
    image = whole_numbers(rng, 3, 5, 5)
    scratch = run_program(program, image).scratch
    there = scratch[buffer.offset : buffer.offset + buffer.layout.size]
    np.testing.assert_array_equal(there, laid_out(image, buffer.layout, between=0))


def test_sums_are_where_they_were_written(program: Program, rng: np.random.Generator) -> None:
    image, features = program.buffers.allocate(nchw(3, 4, 0)), program.buffers.allocate(nchwc(16, 4, 4, 1, LANES))
    program.load_image(image)
    weight = whole_numbers(rng, 16, 3, 1, 1)
    spec = Convolution(1, 1, 0, image.layout, features.layout, pools=True)
    program.convolve(spec, Weights(weight, np.zeros(16, np.float32)), image, features)
    program.finish(features.pooled(), 16)
    values = whole_numbers(rng, 3, 4, 4)
    answer = run_program(program, values)
    np.testing.assert_array_equal(answer.logits, weight[:, :, 0, 0] @ values.sum(axis=(1, 2)))
    output = np.einsum("kc,cyx->kyx", weight[:, :, 0, 0], values)
    np.testing.assert_array_equal(answer.scratch[features.offset + positions(features.layout)], output)


def test_layer_leaves_zeros_beyond_its_outputs(program: Program) -> None:
    source, target = vector(program, LANES), vector(program, 16)
    program.fully_connected(_constant([1, 2, 3]), source, target)
    program.fully_connected(_constant([1, 2, 3]), source, target)
    program.finish(target, 16)
    assert run_program(program).logits.tolist() == [1, 2, 3] + 13 * [0]


@pytest.mark.parametrize(("relu", "expected"), [(False, [-1, 2]), (True, [0, 2])])
def test_layer_has_a_relu_where_it_is_asked_for(program: Program, relu: bool, expected: list[float]) -> None:
    source, target = vector(program, LANES), vector(program, LANES)
    program.fully_connected(_constant([-1, 2]), source, target, relu)
    program.finish(target, 2)
    assert run_program(program).logits.tolist() == expected


def test_layers_with_weights_of_their_own_share_a_kernel(program: Program, rng: np.random.Generator) -> None:
    image, *vectors = vector(program, LANES), *(vector(program, LANES) for _ in range(3))
    weights = [Weights(whole_numbers(rng, LANES, LANES), whole_numbers(rng, LANES)) for _ in range(3)]
    program.fully_connected(weights[0], image, vectors[0])
    program.fully_connected(weights[1], vectors[0], vectors[1])
    program.fully_connected(weights[2], vectors[1], vectors[2])
    program.finish(vectors[2], LANES)
    assert [function.name for function in program.module.functions if function.blocks] == ["classify", "kernel0"]
    first, second, third = weights
    expected = third.weight @ (second.weight @ first.bias + second.bias) + third.bias
    np.testing.assert_array_equal(run_program(program).logits, expected)


def test_convolutions_that_differ_have_kernels_of_their_own(program: Program) -> None:
    source, target = vector(program, LANES), vector(program, LANES)
    for relu in (False, True, False):
        program.fully_connected(_constant([1]), source, target, relu)
    large, small = (
        program.buffers.allocate(nchwc(8, 4, 4, 1, LANES)),
        program.buffers.allocate(nchwc(8, 2, 2, 1, LANES)),
    )
    for _ in range(2):
        program.max_pool(MaxPool(3, 2, 1, large.layout, small.layout), large, small)
    program.finish(target, 1)
    names = [function.name for function in program.module.functions if function.blocks]
    assert names == ["classify", "kernel0", "kernel1", "kernel2"]


@pytest.mark.parametrize(
    ("weight", "bias"),
    [((8, 8, 3, 3), (8,)), ((8, 16, 1, 1), (8,)), ((16, 8, 1, 1), (16,)), ((8, 8, 1, 1), (7,)), ((8, 8), (8,))],
)
def test_weights_of_another_shape_are_refused(program: Program, weight: tuple[int, ...], bias: tuple[int, ...]) -> None:
    source, target = vector(program, LANES), vector(program, LANES)
    spec = Convolution(1, 1, 0, source.layout, target.layout)
    with pytest.raises(ValueError, match=r"where \(8, 8, 1, 1\) belong"):
        program.convolve(spec, Weights(np.zeros(weight, np.float32), np.zeros(bias, np.float32)), source, target)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int8])
def test_weights_of_another_type_are_refused(program: Program, kind: type[np.generic]) -> None:
    source, target = vector(program, LANES), vector(program, LANES)
    spec = Convolution(1, 1, 0, source.layout, target.layout)
    with pytest.raises(ValueError, match=f"weights in {np.dtype(kind)} where float32 belongs"):
        program.convolve(spec, Weights(np.zeros((8, 8, 1, 1), kind), np.zeros(8, np.float32)), source, target)


def _branch(program: Program, margin: float, threshold: float, offset: float) -> Answer:
    """A gate that gives this margin; the logit is 1 where it is open and 2 where it is closed."""
    source, gate, logit = (vector(program, LANES) for _ in range(3))
    program.fully_connected(_constant([margin]), source, gate)

    def gives(number: float) -> None:
        program.fully_connected(_constant([number]), source, logit)

    program.branch(gate, 0, threshold, lambda: gives(1), lambda: gives(2))
    program.finish(logit, 1)
    return run_program(program, offset=offset)


@pytest.mark.parametrize(
    ("margin", "threshold", "offset", "is_open"),
    [
        (0.5, 0.0, 0.0, True),
        (0.0, 0.0, 0.0, False),
        (-0.5, 0.0, 0.0, False),
        (-0.5, 0.0, 0.75, True),
        (0.5, 0.0, -0.5, False),
        (0.25, 0.5, 0.0, False),
        (0.25, 0.5, 0.5, True),
        (-0.25, -0.5, 0.0, True),
        (float(np.float32(0.1)), 0.1, 0.0, False),  # the threshold is rounded as the margin is
        (np.nan, 0.0, 0.0, False),
        (np.nan, 0.0, 1e4, False),
        (np.inf, 0.0, -1e4, True),
    ],
)
def test_gate_is_open_where_margin_and_offset_are_above_the_threshold(
    program: Program, margin: float, threshold: float, offset: float, is_open: bool
) -> None:
    answer = _branch(program, margin, threshold, offset)
    assert answer.logits == [1 if is_open else 2]
    np.testing.assert_array_equal(answer.margins, np.array([margin], np.float32))


def test_margins_are_in_the_order_of_the_gates(program: Program) -> None:
    source, gate = vector(program, LANES), vector(program, LANES)
    for index, margin in enumerate((3.0, 1.0, 2.0)):
        program.fully_connected(_constant([margin]), source, gate)
        program.branch(gate, index, 0.0, lambda: None, lambda: None)
    program.finish(gate, 5)
    answer = run_program(program)
    assert answer.margins.tolist() == [3, 1, 2]
    assert answer.logits.tolist() == [2, 0, 0, 0, 0]


def test_every_layers_weights_begin_at_a_line() -> None:
    lines: list[Float32Array] = []
    program = Program(VectorUnit(4, 16), 4)
    source, target = vector(program, 4), vector(program, 4)
    for number in range(3):
        before = len(lines[-1]) if lines else 0
        program.fully_connected(Weights(np.full((4, 4), number, np.float32), np.ones(4, np.float32)), source, target)
        lines.append(program.weights())
        assert before % 16 == 0
        assert lines[-1][before : before + 20].tolist() == 4 * [1] + 16 * [number]


def test_convolution_does_not_write_over_its_input(program: Program) -> None:
    buffer = vector(program, LANES)
    with pytest.raises(ValueError, match="over its input"):
        program.fully_connected(_constant([1]), buffer, buffer)


def test_arguments_of_the_program_are_promised_to_be_apart(program: Program) -> None:
    program.fully_connected(_constant([1]), vector(program, LANES), logit := vector(program, LANES))
    program.finish(logit, 1)
    arguments = llvm.parse_assembly(str(program.module)).get_function(ENTRY).arguments
    found = [sorted(attribute.decode() for attribute in each.attributes) for each in arguments]
    assert found == [
        ["align 4", "captures(none)", "noalias", "readonly"],
        [],
        ["align 64", "captures(none)", "noalias", "readonly"],
        ["align 64", "captures(none)", "noalias"],
        ["align 4", "captures(none)", "noalias", "writeonly"],
        ["align 4", "captures(none)", "noalias", "writeonly"],
    ]
