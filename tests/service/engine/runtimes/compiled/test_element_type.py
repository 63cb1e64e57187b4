from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from llvmlite import ir

from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.compiled.element_type import ELEMENT_TYPES, ElementType, to_bfloat16
from service.engine.runtimes.compiled.emitter import POINTER, Emitter
from service.engine.runtimes.compiled.processor import VectorUnit, host_vector_unit
from tests.service.engine.runtimes.compiled.kernels import (
    BFLOAT16,
    FLOAT32,
    UINT8,
    Memory,
    as_float,
    kept_as,
    needs_bf16,
    run,
)

LANES = 8
NAN, INF = np.nan, np.inf


def _stored(element_type: ElementType, values: Float32Array) -> Float32Array:
    """What is left of a vector after it was kept, read back."""

    def emit(module: ir.Module, name: str) -> None:
        emitter = Emitter(module, name, [POINTER] * 3, replace(host_vector_unit(), lanes=LANES))
        given, kept, read = emitter.function.args
        element_type.store(emitter, emitter.load(given), kept)
        emitter.store(element_type.load(emitter, kept), read)
        emitter.end()

    kept, read = Memory(kept_as(element_type, np.zeros(LANES, np.float32))), Memory(np.zeros(LANES, np.float32))
    run(emit, Memory(values), kept, read)
    for memory in (kept, read):
        memory.assert_written_only_at(np.arange(LANES))
    np.testing.assert_array_equal(as_float(element_type, kept.content), read.content)
    return read.content


def test_every_precision_has_its_numbers() -> None:
    assert ELEMENT_TYPES == {"fp32": FLOAT32, "bf16": BFLOAT16, "int8": UINT8}
    assert [element_type.value for element_type in ElementType] == [1, 2, 4]  # in a word of 32 bits


def test_float32_is_kept_as_it_is() -> None:
    values = np.array([1 / 3, -0.0, INF, -INF, NAN, 1e-40, 3e38, -7], np.float32)
    np.testing.assert_array_equal(_stored(FLOAT32, values), values)


@needs_bf16
def test_bfloat16_has_eight_bits_of_precision_and_rounds_to_even() -> None:
    values = np.array([1, 257, 258, 259, 261, -1.00390625, INF, NAN], np.float32)
    np.testing.assert_array_equal(_stored(BFLOAT16, values), [1, 256, 258, 260, 260, -1, INF, NAN])


def test_eight_bits_are_rounded_to_even_and_end_at_255() -> None:
    values = np.array([0, 0.5, 1.5, 2.4, 254.6, 255.4, 256, 1e6], np.float32)
    assert _stored(UINT8, values).tolist() == [0, 0, 2, 2, 255, 255, 255, 255]


def test_what_is_beyond_whole_numbers_is_the_largest() -> None:
    assert _stored(UINT8, np.array([3e9, INF, NAN, 1e38, 0, 1, 2, 3], np.float32)).tolist() == [255] * 4 + [0, 1, 2, 3]


@needs_bf16
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_weights_are_rounded_as_features_are(rng: np.random.Generator, scale: float) -> None:
    values = (rng.standard_normal(LANES) * scale).astype(np.float32)
    np.testing.assert_array_equal(as_float(BFLOAT16, to_bfloat16(values)), _stored(BFLOAT16, values))


def test_halves_keep_the_shape_and_need_not_lie_in_order() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(as_float(BFLOAT16, to_bfloat16(values)), values)


def test_bfloat16_is_not_written_by_a_processor_that_cannot_convert_to_it() -> None:
    for without in (VectorUnit(16, 32), VectorUnit(16, 32, int8_dot=True), VectorUnit(8, 16), VectorUnit(4, 32)):
        emit = Emitter(ir.Module("test"), "kernel", [POINTER], without)
        (pointer,) = emit.function.args
        for element_type in (FLOAT32, UINT8):
            element_type.store(emit, emit.zero, pointer)
        with pytest.raises(RuntimeUnavailable, match="no bf16 arithmetic"):
            BFLOAT16.store(emit, emit.zero, pointer)
