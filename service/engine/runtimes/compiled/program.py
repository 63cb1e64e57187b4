"""The program of a whole network: kernels, the order in which they run, and where their weights lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from llvmlite import ir

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.buffers import Arena, Buffer, BufferPlan
from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.convolution_kernel import emit_convolution
from service.engine.runtimes.compiled.element_type import ElementType, to_bfloat16
from service.engine.runtimes.compiled.emitter import FLOAT, POINTER, Emitter, integer
from service.engine.runtimes.compiled.executable import ALIGNMENT
from service.engine.runtimes.compiled.layers import Weights
from service.engine.runtimes.compiled.layout import packed_weights, padded_outputs
from service.engine.runtimes.compiled.pooling import MaxPool, emit_max_pool
from service.engine.runtimes.compiled.processor import VectorUnit

ENTRY = "classify"
# Adds to a program what is to be done.
Emission = Callable[[], None]


class Program:
    """Builds `classify(image, offset, weights, scratch, logits, margins)`, all addresses but the second.

    Scratch memory must be zero before the first call; what lies around the features stays so.

    Args:
        vectors: of the processor.
        lanes: channels in a block; all channel counts but the image's are multiples.

    Attributes:
        buffers: the plan of the scratch memory.
        logits_count, margins_count: how many the program gives for an image.
    """

    def __init__(self, vectors: VectorUnit, lanes: int) -> None:
        self.module = ir.Module(ENTRY)
        self.logits_count = self.margins_count = 0
        self._vectors = replace(vectors, lanes=lanes)
        self._scratch_arena, self._weights_arena = Arena(), Arena()
        self.buffers = BufferPlan(self._scratch_arena)
        self._weights: dict[int, Float32Array] = {}
        self._kernels: dict[Convolution | MaxPool, ir.Function] = {}
        self._emit = Emitter(self.module, ENTRY, [POINTER, FLOAT, POINTER, POINTER, POINTER, POINTER], self._vectors)
        self._image, self._offset, self._constants, self._scratch, self.logits, self.margins = self._emit.function.args
        # The runtime gives every call arrays of its own for each; and of those that a kernel gets, aligned ones.
        self._emit.promise(self._image, "noalias", "readonly")
        self._emit.promise(self._constants, "noalias", "readonly", alignment=ALIGNMENT)
        self._emit.promise(self._scratch, "noalias", alignment=ALIGNMENT)
        self._emit.promise(self.logits, "noalias", "writeonly")
        self._emit.promise(self.margins, "noalias", "writeonly")

    @property
    def lanes(self) -> int:
        """Channels in a block."""
        return self._vectors.lanes

    @property
    def scratch_size(self) -> int:
        """Of the scratch memory, in words."""
        return self._scratch_arena.size

    def weights(self) -> Float32Array:
        """All weights, in one dimension."""
        whole = np.zeros(self._weights_arena.size, np.float32)
        for offset, values in self._weights.items():
            whole[offset : offset + len(values)] = values
        return whole

    @property
    def kernels(self) -> dict[str, Convolution | MaxPool]:
        """What each kernel does, by its name."""
        return {function.name: spec for spec, function in self._kernels.items()}

    def load_image(self, target: Buffer) -> None:
        """Copy the image, (C, H, W) without a border, to a buffer with one."""
        emit, layout = self._emit, target.layout
        size = ir.Constant(ir.IntType(64), 4 * layout.width)
        copy = self.module.declare_intrinsic("llvm.memcpy", [POINTER, POINTER, size.type])
        to = emit.address(self._scratch, target.offset, layout.start())

        def row(channel: ir.Value, index: ir.Value) -> None:
            source = emit.address(self._image, (channel, layout.height * layout.width), (index, layout.width))
            here = emit.address(to, (channel, layout.lane), (index, layout.row))
            emit.builder.call(copy, [here, source, size, ir.Constant(ir.IntType(1), 0)])

        emit.each(layout.channels, lambda channel: emit.each(layout.height, lambda index: row(channel, index)))

    def load_image_to_depth(self, target: Buffer) -> None:
        """Copy the image, (C, H, W) without a border, to one in `space_to_depth`; W is a multiple of the lanes."""
        emit, layout, lanes = self._emit, target.layout, self.lanes
        to = emit.address(self._scratch, target.offset, layout.start())

        def copy(source: ir.Value, here: ir.Value, part: ir.Value) -> None:
            layout.element_type.store(
                emit, emit.load(source, (part, lanes)), here, (part, lanes // layout.element_type.value)
            )

        # Of every two rows the second goes where the other channels of the same pixels are.
        def row(lane: ir.Value, index: ir.Value) -> None:
            channel, down = emit.builder.lshr(lane, integer(1)), emit.builder.and_(lane, integer(1))
            source = emit.address(
                self._image,
                (channel, 4 * layout.height * layout.width),
                (index, 4 * layout.width),
                (down, 2 * layout.width),
            )
            here = emit.address(to, (lane, layout.lane), (index, layout.row))
            emit.each(2 * layout.width // lanes, lambda part: copy(source, here, part))

        emit.each(layout.words, lambda lane: emit.each(layout.height, lambda index: row(lane, index)))

    def convolve(
        self, convolution: Convolution, weights: Weights, source: Buffer, target: Buffer, residual: Buffer | None = None
    ) -> None:
        """Run a convolution from one buffer to another, adding the residual in a third where it has one.

        Raises:
            ValueError: the weights are of another shape or type, or the output is in the input's place.
        """
        if source.offset == target.offset:
            raise ValueError("a convolution cannot write over its input")
        expected = target.layout.channels, source.layout.channels, convolution.kernel, convolution.kernel
        element_type = source.layout.element_type
        if weights.weight.shape != expected or weights.bias.shape != expected[:1]:
            raise ValueError(f"weights of {weights.weight.shape} where {expected} belong")
        if weights.weight.dtype != (kind := np.dtype(np.int8 if element_type is ElementType.UINT8 else np.float32)):
            raise ValueError(f"weights in {weights.weight.dtype} where {kind} belongs")
        kernel = self._kernel(convolution)
        weight = to_bfloat16(weights.weight) if element_type is ElementType.BFLOAT16 else weights.weight
        before = [weights.bias] if weights.scale is None else [weights.bias, weights.scale]
        packed = packed_weights(weight, before, source.layout.lanes, convolution.channels_per_tile)
        constants = self._emit.address(self._constants, self._constant(packed))
        addresses = self._at(source.offset), constants, self._at((residual or target).offset), self._at(target.offset)
        self._emit.builder.call(kernel, [*addresses, self._at(target.sums)])

    def fully_connected(self, weights: Weights, source: Buffer, target: Buffer, relu: bool = False) -> None:
        """Run a fully connected layer on a single pixel; outputs beyond its own, up to the target's, become zero."""
        weight, bias = padded_outputs(weights.weight, weights.bias, target.layout.channels)
        spec = Convolution(1, 1, 0, source.layout, target.layout, relu=relu)
        self.convolve(spec, Weights(weight[:, :, None, None], bias), source, target)

    def max_pool(self, pool: MaxPool, source: Buffer, target: Buffer) -> None:
        """Run a pooling from one buffer to another."""
        kernel = self._kernel(pool)
        self._emit.builder.call(kernel, [self._at(source.offset), self._at(target.offset), self._at(target.sums)])

    def branch(self, margin: Buffer, index: int, threshold: float, opened: Emission, closed: Emission) -> None:
        """Note a gate's margin, and do one thing or the other as the gate is open or closed."""
        builder = self._emit.builder
        value = self._emit.load_scalar(self._scratch, margin.offset)
        self._emit.store(value, self.margins, index)
        self.margins_count = max(self.margins_count, index + 1)
        limit = ir.Constant(FLOAT, float(np.float32(threshold)))
        is_open = builder.fcmp_ordered(">", builder.fadd(value, self._offset), limit)
        with builder.if_else(is_open) as (then, otherwise):
            with then:
                opened()
            with otherwise:
                closed()

    def finish(self, logits: Buffer, count: int) -> None:
        """Hand the logits over and end."""

        def one(index: ir.Value) -> None:
            self._emit.store(self._emit.load_scalar(self._scratch, logits.offset, index), self.logits, index)

        self._emit.each(count, one)
        self.logits_count = count
        self._emit.end()

    def _kernel(self, spec: Convolution | MaxPool) -> ir.Function:
        """The kernel for this, the same for all that are alike."""
        if spec not in self._kernels:
            name = f"kernel{len(self._kernels)}"
            if isinstance(spec, MaxPool):
                self._kernels[spec] = emit_max_pool(self.module, name, spec, self._vectors)
            else:
                self._kernels[spec] = emit_convolution(self.module, name, spec, self._vectors)
        return self._kernels[spec]

    def _at(self, offset: int) -> ir.Value:
        return self._emit.address(self._scratch, offset)

    def _constant(self, values: Float32Array) -> int:
        offset = self._weights_arena.reserve(len(values))
        self._weights[offset] = values
        return offset
