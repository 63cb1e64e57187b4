from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llvmlite", reason="needs llvmlite")

from service.engine.runtimes.compiled import processor
from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.processor import VectorUnit
from tests.service.engine.runtimes.compiled.kernels import BFLOAT16, FLOAT32, UINT8, assert_convolves, convolution

KINDS = list(ElementType)
# What this processor multiplies, in its widest vectors, and what it can write.
INSTRUCTIONS = processor.host_vector_unit().bf16_dot, processor.host_vector_unit().int8_dot
INPUTS = [FLOAT32, *[BFLOAT16] * INSTRUCTIONS[0], *[UINT8] * INSTRUCTIONS[1]]
OUTPUTS = [FLOAT32, *[BFLOAT16] * INSTRUCTIONS[0], UINT8]
# To compile a kernel takes much longer than to try a request.
EACH = settings().max_examples // 20


@st.composite
def _convolutions(draw: st.DrawFn) -> tuple[Convolution, VectorUnit]:
    vectors = draw(
        st.builds(VectorUnit, st.sampled_from([2, 4, 8, 16]), st.sampled_from([16, 32]), *map(st.just, INSTRUCTIONS))
    )
    kernel, stride = draw(st.sampled_from([1, 2, 3, 5])), draw(st.integers(1, 3))
    padding = draw(st.integers(0, kernel // 2))
    height, width = (draw(st.integers(max(1, kernel - 2 * padding), 15)) for _ in range(2))
    borders = draw(st.integers(padding, padding + 2)), draw(st.integers(0, 2))
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    residual, relu, pools = draw(st.sampled_from([False, True, *KINDS])), draw(st.booleans()), draw(st.booleans())
    element_types = (FLOAT32, FLOAT32)
    if vectors.lanes == 16:
        element_types = draw(st.sampled_from(INPUTS)), draw(st.sampled_from(OUTPUTS))
    if vectors.lanes < 4 or element_types[1] is UINT8:  # a word holds four, and no negative ones
        residual, relu = bool(residual), True
    shape = width, kernel, stride, padding, borders, height
    return convolution(vectors, inputs, outputs, *shape, element_types, residual, relu=relu, pools=pools), vectors


@settings(max_examples=EACH)
@given(_convolutions(), st.integers(0, 2**32 - 1))
def test_any_convolution_gives_what_numpy_gives(case: tuple[Convolution, VectorUnit], seed: int) -> None:
    assert_convolves(*case, np.random.default_rng(seed))
