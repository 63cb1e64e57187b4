"""A direct convolution: the loops around the microkernel.

They go over chunks of rows, tiles of output channels, slices of the input channels, rows, and tiles of pixels, in this
order; `Convolution` says how large each is. A fully connected layer is a convolution of a single pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llvmlite import ir

from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.dot_products import dot_product_of
from service.engine.runtimes.compiled.emitter import POINTER, Emitter, integer
from service.engine.runtimes.compiled.epilogue import Epilogue
from service.engine.runtimes.compiled.executable import ALIGNMENT
from service.engine.runtimes.compiled.microkernel import Microkernel, Slice, Tile
from service.engine.runtimes.compiled.processor import VectorUnit

# Rows up to this wide are joined where they may be, so that fewer tiles are cut off at their ends.
_WIDEST_JOINED = 14


def emit_convolution(module: ir.Module, name: str, convolution: Convolution, vectors: VectorUnit) -> ir.Function:
    """Add the kernel: a function of the addresses of input, weights, residual, output, and sums.

    The addresses of features are those of their first word, border included. Weights are as `packed_weights` has
    them. Sums are one for each output channel, and are written only where they are wanted.
    """
    return _Kernel(module, name, _joined(convolution), vectors).emit()


def _joined(spec: Convolution) -> Convolution:
    """The same with all rows as one, where that may be and is worth it."""
    layouts = [spec.source, spec.target, *([spec.residual] if spec.residual else [])]
    if spec.kernel * spec.stride > 1 or any(layout.padding for layout in layouts) or spec.target.width > _WIDEST_JOINED:
        return spec
    residual = spec.residual and spec.residual.as_one_row()
    return replace(spec, source=spec.source.as_one_row(), target=spec.target.as_one_row(), residual=residual)


class _Kernel:
    """Emits one kernel: a function of its own."""

    def __init__(self, module: ir.Module, name: str, spec: Convolution, vectors: VectorUnit) -> None:
        self._spec = spec
        self._vectors_per_tile = spec.vectors_per_tile()
        self._registers, self._caches = vectors.registers, vectors.caches
        self._emitter = Emitter(module, name, [POINTER] * 5, vectors)
        self._input, self._weights, self._residual, self._output, self._sums = self._emitter.function.args
        self._promise()
        self._dot = dot_product_of(spec.source.element_type, self._emitter)
        self._microkernel = Microkernel(self._emitter, spec, self._dot)
        self._epilogue = Epilogue(self._emitter, spec, self._dot, self._residual, self._output, self._sums)

    def _promise(self) -> None:
        """What holds for the addresses: each is of a region of its own, but for a residual in the output's place.

        Regions of an arena are disjoint and aligned, and `Program.convolve` refuses an output in the input's place.
        A residual can only be in the output's place where it has the output's layout; then neither is promised to be
        apart from the other. Where there is none its address is not used.
        """
        promise, in_place = self._emitter.promise, self._spec.residual == self._spec.target
        for argument in (self._input, self._weights):
            promise(argument, "noalias", "readonly", alignment=ALIGNMENT)
        promise(self._residual, "readonly", *[] if in_place else ["noalias"], alignment=ALIGNMENT)
        promise(self._output, *[] if in_place else ["noalias"], alignment=ALIGNMENT)
        promise(self._sums, "noalias", alignment=ALIGNMENT)

    def emit(self) -> ir.Function:
        """The whole function."""
        emit, target = self._emitter, self._spec.target
        self._epilogue.clear()
        rows = self._spec.row_block(self._caches)

        def chunk(index: ir.Value) -> None:
            first = emit.builder.mul(index, ir.Constant(index.type, rows))
            emit.each(
                target.blocks // self._vectors_per_tile,
                lambda channels: self._slices(lambda part: self._rows(channels, first, rows, part)),
            )

        self._emitter.each(target.height // rows, chunk)
        emit.end()
        return emit.function

    def _slices(self, body: Callable[[Slice], None]) -> None:
        """Do something for each slice of the input channels in turn."""
        emit, blocks, count = self._emitter, self._spec.source.blocks, self._spec.reduction_block(self._caches)
        slices = blocks // count
        body(Slice(integer(0), count, begins=True, ends=slices == 1))
        if slices > 2:
            stride = integer(count)
            emit.each(
                slices - 2,
                lambda index: body(
                    Slice(emit.builder.add(emit.builder.mul(index, stride), stride), count, begins=False, ends=False)
                ),
            )
        if slices > 1:
            body(Slice(integer(blocks - count), count, begins=False, ends=True))

    def _rows(self, channels: ir.Value, first: ir.Value, count: int, part: Slice) -> None:
        builder = self._emitter.builder
        self._emitter.each(count, lambda row: self._row(channels, builder.add(first, row), part))

    def _row(self, channels: ir.Value, row: ir.Value, part: Slice) -> None:
        """All tiles of a row."""
        first = 0
        for count, pixels in self._spec.tiles(self._spec.target.width, self._registers):
            self._emitter.each(count, self._tile(channels, row, first, pixels, part))
            first += count * pixels

    def _tile(
        self, channels: ir.Value, row: ir.Value, first: int, pixels: int, part: Slice
    ) -> Callable[[ir.Value], None]:
        """What is done for each of several tiles in a row, the first of which begins at a pixel."""

        def emitted(index: ir.Value) -> None:
            emit, spec, source = self._emitter, self._spec, self._spec.source
            builder = emit.builder
            column = builder.add(ir.Constant(index.type, first), builder.mul(index, ir.Constant(index.type, pixels)))
            tile = Tile(channels, row, column, pixels)
            inputs = emit.address(
                self._input,
                source.start(spec.padding),
                (row, spec.stride * source.row),
                (column, spec.stride * source.pixel),
            )
            words = spec.channels_per_tile * (self._dot.constants + spec.taps)
            weights = emit.address(self._weights, (channels, words))
            sums = self._epilogue.initial(tile, weights, part)
            sums = self._microkernel.accumulate(sums, inputs, weights, pixels, part)
            self._epilogue.write(sums, tile, weights, part)

        return emitted
