"""Running single kernels on memory that shows what they read and wrote.

All numbers are small and whole, so that every order of summing them gives the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from llvmlite import ir
from numpy.lib.stride_tricks import sliding_window_view

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.buffers import Buffer
from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.convolution_kernel import emit_convolution
from service.engine.runtimes.compiled.element_type import ElementType, to_bfloat16
from service.engine.runtimes.compiled.executable import ALIGNMENT
from service.engine.runtimes.compiled.layers import Weights
from service.engine.runtimes.compiled.layout import Layout, nchwc, packed_weights
from service.engine.runtimes.compiled.pooling import MaxPool, emit_max_pool
from service.engine.runtimes.compiled.processor import MachineCode, VectorUnit, compiled_code, host_vector_unit
from service.engine.runtimes.compiled.program import ENTRY, Program

_GUARD = 64  # words on each side of what a kernel may touch; a multiple of the alignment
_UNTOUCHED = np.float32(1234.5)

Emit = Callable[[ir.Module, str], object]
Positions = np.ndarray[tuple[int, ...], np.dtype[np.intp]]
FLOAT32, BFLOAT16, UINT8 = ElementType
needs_bf16 = pytest.mark.skipif(
    not host_vector_unit().bf16_dot, reason="this processor does not multiply pairs of bfloat16"
)
needs_int8 = pytest.mark.skipif(
    not host_vector_unit().int8_dot, reason="this processor does not multiply 8 bits by fours"
)


class Memory:
    """Numbers between guards.

    Args:
        content: of the part between.
        guard: what lies around: a number to see that it is not written, or none that would spread where it is read.
    """

    def __init__(self, content: npt.NDArray[Any], guard: float = float(_UNTOUCHED)) -> None:
        self._guard = _GUARD * 4 // content.itemsize
        around = np.array([guard], np.float32).view(content.dtype)[-1]  # in bfloat16 the upper half of none is none
        room = np.full(content.size + 2 * self._guard + ALIGNMENT, around, content.dtype)
        first = -room.ctypes.data % ALIGNMENT // content.itemsize
        self._whole = room[first : first + content.size + 2 * self._guard]
        self.content[:] = content
        self._before = self._whole.copy()

    @property
    def content(self) -> npt.NDArray[Any]:
        """The part between the guards."""
        return self._whole[self._guard : -self._guard]

    @property
    def address(self) -> int:
        """Of the content."""
        return self.content.ctypes.data

    def assert_written_only_at(self, positions: Positions) -> None:
        """Nothing changed but the content at these positions."""
        elsewhere = np.ones(self._whole.size, bool)
        elsewhere[positions.ravel() + self._guard] = False
        np.testing.assert_array_equal(self._whole[elsewhere], self._before[elsewhere])


def run(emit: Emit, *memories: Memory) -> None:
    """Compile a kernel for this processor and call it."""
    module = ir.Module("test")
    emit(module, "kernel")
    code = MachineCode(compiled_code(str(module)))
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(memories))(code.address("kernel"))
    function(*(memory.address for memory in memories))


def positions(layout: Layout) -> Positions:
    """Where each number of features (C, H, W) lies, counted in such numbers."""
    channel, y, x = np.ogrid[: layout.channels, : layout.height, : layout.width]
    block, lane = channel // layout.lanes, channel % layout.lanes
    word, within = lane // layout.element_type.value, lane % layout.element_type.value
    inside = (y + layout.padding) * layout.row + (x + layout.padding) * layout.pixel
    found: Positions = (block * layout.block + word * layout.lane + inside) * layout.element_type.value + within
    return found


def kept_as(element_type: ElementType, values: Float32Array) -> npt.NDArray[Any]:
    """Numbers as they are in memory."""
    if element_type is FLOAT32:
        return values.astype(np.float32)
    return to_bfloat16(values) if element_type is BFLOAT16 else np.rint(values).clip(0, 255).astype(np.uint8)


def as_float(element_type: ElementType, content: npt.NDArray[Any]) -> Float32Array:
    """What numbers in memory stand for."""
    if element_type is BFLOAT16:
        return (content.astype(np.uint32) << 16).view(np.float32)
    return content.astype(np.float32)


def laid_out(values: Float32Array, layout: Layout, between: float) -> npt.NDArray[Any]:
    """Features (C, H, W) as they lie in memory, with a border of zeros, and something between the blocks."""
    words = np.full(layout.size, between, np.float32)
    memory = words.view(kept_as(layout.element_type, values[:0]).dtype)
    height, width = layout.height + 2 * layout.padding, layout.width + 2 * layout.padding
    memory[positions(replace(layout, height=height, width=width, padding=0))] = 0
    memory[positions(layout)] = kept_as(layout.element_type, values)
    return memory


def whole_numbers(rng: np.random.Generator, *shape: int, least: int = -3) -> Float32Array:
    """Random numbers from `least` to 3."""
    return rng.integers(least, 4, shape).astype(np.float32)


def run_convolution(
    spec: Convolution, vectors: VectorUnit, source: Float32Array, weights: Weights, before: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Output (K, H, W) and sums (K,) of a kernel, after seeing that it touched nothing else.

    Args:
        source: (C, H, W) input.
        weights: of the convolution.
        before: (K, H, W), what is in the output's place, and what is added.
    """
    target = spec.target
    weight = to_bfloat16(weights.weight) if spec.source.element_type is BFLOAT16 else weights.weight
    constants = [weights.bias] if weights.scale is None else [weights.bias, weights.scale]
    inputs = Memory(laid_out(source, spec.source, between=np.nan), guard=np.nan)
    packed = Memory(packed_weights(weight, constants, spec.source.lanes, spec.channels_per_tile), guard=np.nan)
    outputs = Memory(laid_out(before, target, between=0))
    apart = Memory(
        laid_out(before, spec.residual, between=np.nan) if spec.residual else np.zeros(0, np.float32), guard=np.nan
    )
    addends = outputs if spec.residual == target else apart
    sums = Memory(np.full(target.channels, _UNTOUCHED))
    emit = (inputs, packed, addends, outputs, sums)
    run(lambda module, name: emit_convolution(module, name, spec, vectors), *emit)
    for memory in (inputs, packed, apart):
        memory.assert_written_only_at(np.array([], np.intp))
    outputs.assert_written_only_at(positions(target))
    sums.assert_written_only_at(np.arange(target.channels if spec.pools else 0))
    return as_float(target.element_type, outputs.content[positions(target)]), sums.content


def convolved(spec: Convolution, source: Float32Array, weights: Weights, before: Float32Array) -> Float32Array:
    """What the kernel should write, (K, H, W), before it is rounded to what the output is kept in."""
    padded = np.pad(source, ((0, 0), (spec.padding,) * 2, (spec.padding,) * 2))
    windows = sliding_window_view(padded, (spec.kernel, spec.kernel), axis=(1, 2))
    steps = windows[:, :: spec.stride, :: spec.stride][:, : spec.target.height, : spec.target.width]
    found = np.einsum("cyxij,kcij->kyx", steps, weights.weight.astype(np.float32), optimize=True)
    if weights.scale is not None:
        found = found * weights.scale[:, None, None]
    found = found + weights.bias[:, None, None] + before * (spec.residual is not None)
    return np.maximum(found, 0) if spec.relu else found


def convolution(
    vectors: VectorUnit,
    inputs: int,
    outputs: int,
    side: int,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    borders: tuple[int, int] | None = None,
    height: int | None = None,
    element_types: tuple[ElementType, ElementType] = (FLOAT32, FLOAT32),
    residual: bool | ElementType = False,
    **flags: bool,
) -> Convolution:
    """A convolution of so many blocks of channels, on features with the borders it needs, or with those given.

    Args:
        numbers: that input and output are kept in.
        adds: whether the output is added to what is in its place, or the numbers of what it is added to elsewhere.
    """
    padding = kernel // 2 if padding is None else padding
    around, beyond = borders or (padding, 1)
    height = height or side
    lanes = vectors.lanes
    over = [(size + 2 * padding - kernel) // stride + 1 for size in (height, side)]
    source = nchwc(inputs * lanes, height, side, around, lanes, element_types[0])
    target = nchwc(outputs * lanes, over[0], over[1], beyond, lanes, element_types[1])
    apart = (
        nchwc(outputs * lanes, over[0], over[1], 0, lanes, residual) if isinstance(residual, ElementType) else target
    )
    return Convolution(kernel, stride, padding, source, target, residual=apart if residual else None, **flags)


def random_weights(rng: np.random.Generator, spec: Convolution) -> Weights:
    """Of small whole numbers."""
    outputs = spec.target.channels
    weight, bias = (
        whole_numbers(rng, outputs, spec.source.channels, spec.kernel, spec.kernel),
        whole_numbers(rng, outputs),
    )
    if spec.source.element_type is UINT8:
        return Weights(weight.astype(np.int8), bias, rng.choice(np.array([0.25, 0.5, 1], np.float32), outputs))
    return Weights(weight, bias)


def assert_convolves(spec: Convolution, vectors: VectorUnit, rng: np.random.Generator) -> None:
    """The kernel gives, to the bit, what NumPy gives for random whole numbers."""
    source, target = spec.source, spec.target
    least = 0 if source.element_type is UINT8 else -3
    features = whole_numbers(rng, source.channels, source.height, source.width, least=least)
    least = 0 if UINT8 in (target.element_type, spec.residual and spec.residual.element_type) else -3
    before = whole_numbers(rng, target.channels, target.height, target.width, least=least)
    weights = random_weights(rng, spec)
    output, sums = run_convolution(spec, vectors, features, weights, before)
    expected = convolved(spec, features, weights, before)
    np.testing.assert_array_equal(output, as_float(target.element_type, kept_as(target.element_type, expected)))
    if spec.pools:
        np.testing.assert_array_equal(sums, expected.sum(axis=(1, 2)))


def run_max_pool(spec: MaxPool, source: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Output (C, H, W) and sums (C,) of a kernel, after seeing that it touched nothing else."""
    inputs = Memory(laid_out(source, spec.source, between=np.nan), guard=np.nan)
    outputs = Memory(
        laid_out(np.zeros_like(source[:, : spec.target.height, : spec.target.width]), spec.target, between=0)
    )
    sums = Memory(np.full(spec.target.channels, _UNTOUCHED))
    here = replace(host_vector_unit(), lanes=spec.target.lanes)
    run(lambda module, name: emit_max_pool(module, name, spec, here), inputs, outputs, sums)
    inputs.assert_written_only_at(np.array([], np.intp))
    outputs.assert_written_only_at(positions(spec.target))
    sums.assert_written_only_at(np.arange(spec.target.channels))
    return as_float(spec.target.element_type, outputs.content[positions(spec.target)]), sums.content


def vector(program: Program, channels: int) -> Buffer:
    """A buffer for a single pixel."""
    return program.buffers.allocate(nchwc(channels, 1, 1, 0, program.lanes))


class Answer(NamedTuple):
    """What a program left behind; the logits and margins without the guards that were seen to be whole."""

    logits: Float32Array
    margins: Float32Array
    scratch: Float32Array


def run_program(program: Program, image: Float32Array | None = None, offset: float = 0.0) -> Answer:
    """Compile a program for this processor and run it on memory as the runtime gives it."""
    image = np.zeros(1, np.float32) if image is None else image
    code = MachineCode(compiled_code(str(program.module)))
    inputs, weights = Memory(image.ravel(), guard=np.nan), Memory(program.weights(), guard=np.nan)
    scratch = Memory(np.zeros(program.scratch_size, np.float32))
    logits, margins = (Memory(np.zeros(count, np.float32)) for count in (program.logits_count, program.margins_count))
    pointer = ctypes.c_void_p
    function = ctypes.CFUNCTYPE(None, pointer, ctypes.c_float, *[pointer] * 4)(code.address(ENTRY))
    memories = (inputs, weights, scratch, logits, margins)
    first, *others = (memory.address for memory in memories)
    function(first, offset, *others)
    for memory in memories:
        memory.assert_written_only_at(np.arange(0 if memory in (inputs, weights) else memory.content.size))
    return Answer(logits.content, margins.content, scratch.content)
