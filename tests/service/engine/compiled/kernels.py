"""Running single kernels on memory that shows what they read and wrote.

All numbers are small and whole, so that every order of summing them gives the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numpy.lib.stride_tricks import sliding_window_view

from artifact.preprocessing import Float32Array
from service.engine.compiled.convolution import Convolution
from service.engine.compiled.convolution_kernel import emit_convolution
from service.engine.compiled.layout import Layout, blocked, packed_weights
from service.engine.compiled.pooling import MaxPool, emit_max_pool
from service.engine.compiled.processor import MachineCode, Vectors, compiled_code
from service.engine.compiled.program import ENTRY, Program

_GUARD = 64  # numbers on each side of what a kernel may touch
_UNTOUCHED = np.float32(1234.5)

Emit = Callable[[ir.Module, str], object]


class Memory:
    """Numbers between guards.

    Args:
        content: of the part between.
        guard: what lies around: a number to see that it is not written, or none that would spread where it is read.
    """

    def __init__(self, content: Float32Array, guard: float = float(_UNTOUCHED)) -> None:
        self._whole = np.pad(content.astype(np.float32), _GUARD, constant_values=guard)
        self._before = self._whole.copy()

    @property
    def content(self) -> Float32Array:
        """The part between the guards."""
        return self._whole[_GUARD:-_GUARD]

    @property
    def address(self) -> int:
        """Of the content."""
        return self._whole.ctypes.data + self._whole.itemsize * _GUARD

    def assert_written_only_at(self, positions: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> None:
        """Nothing changed but the content at these positions."""
        elsewhere = np.ones(self._whole.size, bool)
        elsewhere[positions.ravel() + _GUARD] = False
        np.testing.assert_array_equal(self._whole[elsewhere], self._before[elsewhere])


def run(emit: Emit, *memories: Memory) -> None:
    """Compile a kernel for this processor and call it."""
    module = ir.Module("test")
    emit(module, "kernel")
    code = MachineCode(compiled_code(str(module)))
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(memories))(code.address("kernel"))
    function(*(memory.address for memory in memories))


def positions(layout: Layout) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Where each number of features (C, H, W) lies."""
    channel, y, x = np.ogrid[: layout.channels, : layout.height, : layout.width]
    block, lane = channel // layout.lanes, channel % layout.lanes
    inside = (y + layout.padding) * layout.row + (x + layout.padding) * layout.pixel
    found: np.ndarray[tuple[int, ...], np.dtype[np.intp]] = block * layout.block + lane * layout.lane + inside
    return found


def laid_out(values: Float32Array, layout: Layout, between: float) -> Float32Array:
    """Features (C, H, W) as they lie in memory, with a border of zeros, and something between the blocks."""
    memory = np.full(layout.size, between, np.float32)
    height, width = layout.height + 2 * layout.padding, layout.width + 2 * layout.padding
    memory[positions(replace(layout, height=height, width=width, padding=0))] = 0
    memory[positions(layout)] = values
    return memory


def whole_numbers(rng: np.random.Generator, *shape: int, least: int = -3) -> Float32Array:
    """Random numbers from `least` to 3."""
    return rng.integers(least, 4, shape).astype(np.float32)


def run_convolution(
    spec: Convolution,
    vectors: Vectors,
    source: Float32Array,
    weight: Float32Array,
    bias: Float32Array,
    before: Float32Array,
) -> tuple[Float32Array, Float32Array]:
    """Output (K, H, W) and sums (K,) of a kernel, after seeing that it touched nothing else.

    Args:
        source: (C, H, W) input.
        weight, bias: (K, C, k, k) and (K,).
        before: (K, H, W), what is in the output's place.
    """
    target = spec.target
    inputs = Memory(laid_out(source, spec.source, between=np.nan), guard=np.nan)
    weights = Memory(packed_weights(weight, bias, spec.source.lanes, spec.group), guard=np.nan)
    outputs = Memory(laid_out(before, target, between=0))
    sums = Memory(np.full(target.channels, _UNTOUCHED))
    run(lambda module, name: emit_convolution(module, name, spec, vectors), inputs, weights, outputs, sums)
    for memory in (inputs, weights):
        memory.assert_written_only_at(np.array([], np.intp))
    outputs.assert_written_only_at(positions(target))
    sums.assert_written_only_at(np.arange(target.channels if spec.pools else 0))
    return outputs.content[positions(target)], sums.content


def convolved(
    spec: Convolution, source: Float32Array, weight: Float32Array, bias: Float32Array, before: Float32Array
) -> Float32Array:
    """What the kernel should write, (K, H, W)."""
    padded = np.pad(source, ((0, 0), (spec.padding,) * 2, (spec.padding,) * 2))
    windows = sliding_window_view(padded, (spec.kernel, spec.kernel), axis=(1, 2))
    products = np.einsum("cyxij,kcij->kyx", windows[:, :: spec.stride, :: spec.stride], weight, optimize=True)
    found: Float32Array = products + bias[:, None, None] + before * spec.adds
    return np.maximum(found, 0) if spec.relu else found


def convolution(
    vectors: Vectors,
    inputs: int,
    outputs: int,
    side: int,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    borders: tuple[int, int] | None = None,
    height: int | None = None,
    **flags: bool,
) -> Convolution:
    """A convolution of so many blocks of channels, on features with the borders it needs, or with those given."""
    padding = kernel // 2 if padding is None else padding
    around, beyond = borders or (padding, 1)
    height = height or side
    lanes = vectors.lanes
    over = [(size + 2 * padding - kernel) // stride + 1 for size in (height, side)]
    source = blocked(inputs * lanes, height, side, around, lanes)
    target = blocked(outputs * lanes, over[0], over[1], beyond, lanes)
    return Convolution(kernel, stride, padding, source, target, **flags)


def assert_convolves(spec: Convolution, vectors: Vectors, rng: np.random.Generator) -> None:
    """The kernel gives, to the bit, what NumPy gives for random whole numbers."""
    source, target = spec.source, spec.target
    features = whole_numbers(rng, source.channels, source.height, source.width)
    weight = whole_numbers(rng, target.channels, source.channels, spec.kernel, spec.kernel)
    bias = whole_numbers(rng, target.channels)
    before = whole_numbers(rng, target.channels, target.height, target.width)
    output, sums = run_convolution(spec, vectors, features, weight, bias, before)
    expected = convolved(spec, features, weight, bias, before)
    np.testing.assert_array_equal(output, expected)
    if spec.pools:
        np.testing.assert_array_equal(sums, expected.sum(axis=(1, 2)))


def run_max_pool(spec: MaxPool, source: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Output (C, H, W) and sums (C,) of a kernel, after seeing that it touched nothing else."""
    inputs = Memory(laid_out(source, spec.source, between=np.nan), guard=np.nan)
    outputs = Memory(np.zeros(spec.target.size))
    sums = Memory(np.full(spec.target.channels, _UNTOUCHED))
    run(lambda module, name: emit_max_pool(module, name, spec), inputs, outputs, sums)
    inputs.assert_written_only_at(np.array([], np.intp))
    outputs.assert_written_only_at(positions(spec.target))
    sums.assert_written_only_at(np.arange(spec.target.channels))
    return outputs.content[positions(spec.target)], sums.content


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
    scratch = Memory(np.zeros(program.scratch_size))
    logits, margins = (Memory(np.zeros(count)) for count in (program.logits_count, program.margins_count))
    pointer = ctypes.c_void_p
    function = ctypes.CFUNCTYPE(None, pointer, ctypes.c_float, *[pointer] * 4)(code.address(ENTRY))
    memories = (inputs, weights, scratch, logits, margins)
    first, *others = (memory.address for memory in memories)
    function(first, offset, *others)
    for memory in memories:
        memory.assert_written_only_at(np.arange(0 if memory in (inputs, weights) else memory.content.size))
    return Answer(logits.content, margins.content, scratch.content)
