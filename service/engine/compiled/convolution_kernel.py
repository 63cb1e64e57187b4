"""A direct convolution, written so that its sums stay in registers from the first product to the last.

For a few neighbouring pixels and a group of output channels all sums are held in vector registers. Each step takes one
input channel at one offset of the filter: its weights are loaded as vectors over the output channels, and the input of
each pixel is spread over a vector. What a residual network does next is done before the sums are written: bias, the sum
with what is there already, ReLU, and the sums over all pixels, which the next gate wants. Fully connected layers are
convolutions of a single pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from service.engine.compiled.convolution import Convolution
from service.engine.compiled.emitter import POINTER, Emitter, integer
from service.engine.compiled.layout import Layout
from service.engine.compiled.processor import Vectors

# Rows up to this wide are joined where they may be, so that fewer tiles are cut off at their ends.
_WIDEST_JOINED = 14


@dataclass(frozen=True)
class _Part:
    """Some of the input's blocks of channels, which are summed before the next.

    Attributes:
        first: block.
        count: of blocks.
        begins, ends: whether it is the first or the last part.
    """

    first: ir.Value
    count: int
    begins: bool
    ends: bool


def emit_convolution(module: ir.Module, name: str, convolution: Convolution, vectors: Vectors) -> ir.Function:
    """Add the kernel: a function of the addresses of input, weights (as `packed_weights` has them), output, and sums.

    The addresses of input and output are those of their first number, border included. Sums are one for each output
    channel, and are written only where they are wanted.
    """
    source, target = convolution.source, convolution.target
    can_join = convolution.kernel == convolution.stride == 1 and source.padding == target.padding == 0
    if can_join and target.width <= _WIDEST_JOINED:
        source, target = source.as_one_row(), target.as_one_row()
    return _Kernel(module, name, convolution, source, target, vectors).emit()


class _Kernel:
    """Emits one kernel."""

    def __init__(
        self, module: ir.Module, name: str, spec: Convolution, source: Layout, target: Layout, vectors: Vectors
    ) -> None:
        self._spec = spec
        self._source = source
        self._target = target
        self._together = spec.together()
        self._registers = vectors.registers
        self._emitter = Emitter(module, name, [POINTER] * 4, vectors.lanes)
        self._input, self._weights, self._output, self._sums = self._emitter.function.args

    def emit(self) -> ir.Function:
        """The whole function."""
        emit, target = self._emitter, self._target
        if self._spec.pools:
            self._emitter.each(target.blocks, lambda block: emit.store(emit.zero, self._sums, (block, emit.lanes)))
        # Joined rows are one.
        rows = min(self._spec.rows_at_a_time(), target.height)

        def chunk(index: ir.Value) -> None:
            first = emit.builder.mul(index, ir.Constant(index.type, rows))
            emit.each(
                target.blocks // self._together,
                lambda group: self._parts(lambda part: self._rows(group, first, rows, part)),
            )

        self._emitter.each(target.height // rows, chunk)
        emit.end()
        return emit.function

    def _parts(self, body: Callable[[_Part], None]) -> None:
        """Do something for each part of the input in turn."""
        emit, blocks, count = self._emitter, self._source.blocks, self._spec.blocks_at_a_time()
        parts = blocks // count
        body(_Part(integer(0), count, begins=True, ends=parts == 1))
        if parts > 2:
            stride = integer(count)
            emit.each(
                parts - 2,
                lambda index: body(
                    _Part(emit.builder.add(emit.builder.mul(index, stride), stride), count, begins=False, ends=False)
                ),
            )
        if parts > 1:
            body(_Part(integer(blocks - count), count, begins=False, ends=True))

    def _rows(self, group: ir.Value, first: ir.Value, count: int, part: _Part) -> None:
        builder = self._emitter.builder
        self._emitter.each(count, lambda row: self._row(group, builder.add(first, row), part))

    def _row(self, group: ir.Value, row: ir.Value, part: _Part) -> None:
        """All tiles of a row."""
        first = 0
        for count, pixels in self._spec.tiles(self._target.width, self._registers):
            self._emitter.each(count, self._tile_at(group, row, first, pixels, part))
            first += count * pixels

    def _tile_at(
        self, group: ir.Value, row: ir.Value, first: int, pixels: int, part: _Part
    ) -> Callable[[ir.Value], None]:
        def tile(index: ir.Value) -> None:
            emit, spec, source, target = self._emitter, self._spec, self._source, self._target
            builder = emit.builder
            column = builder.add(ir.Constant(index.type, first), builder.mul(index, ir.Constant(index.type, pixels)))
            inputs = emit.address(
                self._input,
                source.start(spec.padding),
                (row, spec.stride * source.row),
                (column, spec.stride * source.pixel),
            )
            weights = emit.address(self._weights, (group, spec.group * (1 + spec.taps)))
            outputs = emit.address(
                self._output,
                target.start(),
                (group, self._together * target.block),
                (row, target.row),
                (column, target.pixel),
            )
            places = [
                vector * target.block + pixel * target.pixel
                for vector in range(self._together)
                for pixel in range(pixels)
            ]
            sums = self._begun(outputs, places, weights, part)
            sums = self._products(sums, inputs, weights, pixels, part)
            self._write(sums, outputs, places, group, part)

        return tile

    def _begun(self, outputs: ir.Value, places: list[int], weights: ir.Value, part: _Part) -> list[ir.Value]:
        """The sums of a tile before a part, those of one vector of output channels after those of the other."""
        emit = self._emitter
        if not part.begins:
            return [emit.load(outputs, place) for place in places]
        pixels = len(places) // self._together
        bias = [emit.load(weights, vector * emit.lanes) for vector in range(self._together)]
        sums = [each for each in bias for _ in range(pixels)]
        if not self._spec.adds:
            return sums
        return [emit.builder.fadd(each, emit.load(outputs, place)) for each, place in zip(sums, places, strict=True)]

    def _products(
        self, sums: list[ir.Value], inputs: ir.Value, weights: ir.Value, pixels: int, part: _Part
    ) -> list[ir.Value]:
        """The sums of a tile with the products of a part."""
        emit, spec, source = self._emitter, self._spec, self._source
        together, lanes = self._together, emit.lanes
        step = source.lanes * spec.group  # weights for one offset of the filter

        # The loops are left to run: unrolled, the same inputs at several offsets would be kept in registers, of which
        # there are none to spare.
        def offset(index: ir.Value, down: ir.Value, right: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            block = emit.builder.add(part.first, index)
            here = emit.address(inputs, (block, source.block), (down, source.row), (right, source.pixel))
            taps = emit.address(
                weights,
                spec.group,
                (block, spec.kernel**2 * step),
                (down, spec.kernel * step),
                (right, step),
            )
            for lane in range(source.lanes):
                row = [emit.load(taps, lane * spec.group + vector * lanes) for vector in range(together)]
                for pixel in range(pixels):
                    number = emit.number(here, pixel * spec.stride * source.pixel + lane * source.lane)
                    spread = emit.spread(number)
                    for vector in range(together):
                        at = vector * pixels + pixel
                        sums[at] = emit.multiply_add(spread, row[vector], sums[at])
            return sums

        return emit.loop(
            part.count,
            lambda block, sums: emit.loop(
                spec.kernel,
                lambda down, sums: emit.loop(spec.kernel, lambda right, sums: offset(block, down, right, sums), sums),
                sums,
            ),
            sums,
        )

    def _write(self, sums: list[ir.Value], outputs: ir.Value, places: list[int], group: ir.Value, part: _Part) -> None:
        """What is done with the sums of a tile after a part."""
        emit, spec = self._emitter, self._spec
        if part.ends and spec.relu:
            sums = [emit.larger(each, emit.zero) for each in sums]
        for each, place in zip(sums, places, strict=True):
            emit.store(each, outputs, place)
        if not (part.ends and spec.pools):
            return
        pixels = len(places) // self._together
        for vector in range(self._together):
            at = (group, spec.group), vector * emit.lanes
            total = emit.load(self._sums, *at)
            for each in sums[vector * pixels : (vector + 1) * pixels]:
                total = emit.builder.fadd(total, each)
            emit.store(total, self._sums, *at)
