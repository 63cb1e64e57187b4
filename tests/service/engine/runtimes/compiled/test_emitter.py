from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from llvmlite import ir

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.emitter import FLOAT, POINTER, Emitter, integer
from service.engine.runtimes.compiled.processor import VectorUnit
from tests.service.engine.runtimes.compiled.kernels import Memory, run

LANES = pytest.mark.parametrize("lanes", [2, 4, 8, 16])
NAN, INF = np.nan, np.inf


def _run(body: Callable[..., None], *contents: Float32Array, lanes: int = 4) -> list[Float32Array]:
    """What a function leaves in the memory it is given."""
    memories = [Memory(content) for content in contents]

    def emit(module: ir.Module, name: str) -> None:
        emitter = Emitter(module, name, [POINTER] * len(contents), VectorUnit(lanes, 16))
        body(emitter, *emitter.function.args)
        emitter.end()

    run(emit, *memories)
    for memory in memories:
        memory.assert_written_only_at(np.arange(memory.content.size))
    return [memory.content for memory in memories]


def _numbers(*values: float) -> Float32Array:
    return np.array(values, np.float32)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_loop_runs_its_body_for_each_index_once_and_in_order(count: int) -> None:
    def body(emit: Emitter, memory: ir.Value) -> None:
        def one(index: ir.Value) -> None:
            before = emit.load_scalar(memory, index)
            emit.store(emit.builder.fadd(before, ir.Constant(FLOAT, 1.0)), memory, index, 1)

        emit.each(count, one)

    (found,) = _run(body, np.zeros(9, np.float32))
    assert found.tolist() == [*range(count + 1), *[0] * (8 - count)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_values_are_carried_from_one_turn_to_the_next_and_out(count: int) -> None:
    def body(emit: Emitter, memory: ir.Value) -> None:
        def turn(_: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            older, newer = carried
            return [newer, emit.builder.fadd(older, newer)]

        for place, value in enumerate(
            emit.loop(count, turn, [emit.load_scalar(memory, 0), emit.load_scalar(memory, 1)])
        ):
            emit.store(value, memory, place)

    (found,) = _run(body, _numbers(0, 1))
    fibonacci = [0, 1, 1, 2, 3, 5, 8]
    assert found.tolist() == fibonacci[count : count + 2]


def test_loop_in_a_loop_carries_through_both() -> None:
    def body(emit: Emitter, memory: ir.Value) -> None:
        def inner(index: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            return [emit.builder.fadd(carried[0], emit.load_scalar(memory, index))]

        (total,) = emit.loop(3, lambda _, carried: emit.loop(4, inner, carried), [emit.load_scalar(memory, 4)])
        emit.store(total, memory, 4)

    (found,) = _run(body, _numbers(1, 2, 3, 4, 100))
    assert found[4] == 100 + 3 * (1 + 2 + 3 + 4)


def test_address_is_the_sum_of_its_terms() -> None:
    def body(emit: Emitter, memory: ir.Value) -> None:
        one, three = emit.load_scalar(memory, 0), emit.load_scalar(memory)
        emit.store(one, memory, 2, 1)
        emit.store(three, memory, integer(1), 3)
        emit.store(one, memory, (integer(2), 3), -1, integer(1), 1)

    (found,) = _run(body, _numbers(5, 0, 0, 0, 0, 0, 0, 0))
    assert np.flatnonzero(found).tolist() == [0, 3, 4, 7]


@LANES
def test_vectors_are_read_and_written_where_no_line_begins(lanes: int) -> None:
    def body(emit: Emitter, source: ir.Value, target: ir.Value) -> None:
        emit.store(emit.load(source, 1), target, 3)

    contents = np.arange(lanes + 2, dtype=np.float32), np.zeros(lanes + 4, np.float32)
    _, target = _run(body, *contents, lanes=lanes)
    assert target.tolist() == [0, 0, 0, *range(1, lanes + 1), 0]


@LANES
def test_number_is_spread_over_a_vector_and_multiplied(lanes: int) -> None:
    def body(emit: Emitter, number: ir.Value, memory: ir.Value) -> None:
        vector = emit.load(memory)
        emit.store(emit.fma(emit.broadcast(emit.load_scalar(number)), vector, vector), memory)

    vector = np.arange(lanes, dtype=np.float32)
    _, found = _run(body, _numbers(3), vector, lanes=lanes)
    np.testing.assert_array_equal(found, 4 * vector)


def _pairs(choose: str) -> Float32Array:
    """What is chosen of two vectors."""

    def body(emit: Emitter, left: ir.Value, right: ir.Value) -> None:
        emit.store(getattr(emit, choose)(emit.load(left), emit.load(right)), left)

    left, right = _numbers(1, 2, -INF, -1, NAN, 0, NAN, 0), _numbers(2, 1, 0, INF, 0, NAN, NAN, -3)
    return _run(body, left, right, lanes=8)[0]


def test_larger_of_two_keeps_what_is_no_number_on_its_left() -> None:
    np.testing.assert_array_equal(_pairs("larger"), [2, 2, 0, INF, NAN, 0, NAN, 0])


def test_largest_of_two_is_no_number_where_either_is_none() -> None:
    np.testing.assert_array_equal(_pairs("largest"), [2, 2, 0, INF, NAN, NAN, NAN, 0])
