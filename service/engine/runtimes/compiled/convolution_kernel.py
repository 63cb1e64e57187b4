"""A direct convolution, written so that its sums stay in registers from the first product to the last.

For a few neighbouring pixels and a group of output channels all sums are held in vector registers. Each step takes one
input channel at one offset of the filter: its weights are loaded as vectors over the output channels, and the input of
each pixel is spread over a vector. What a residual network does next is done before the sums are written: bias, the sum
with what is there already, ReLU, and the sums over all pixels, which the next gate wants. Fully connected layers are
convolutions of a single pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from llvmlite import ir

from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.dot_products import dot_product_of
from service.engine.runtimes.compiled.emitter import POINTER, Emitter, integer
from service.engine.runtimes.compiled.executable import ALIGNMENT
from service.engine.runtimes.compiled.layout import Layout
from service.engine.runtimes.compiled.processor import VectorUnit

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


@dataclass(frozen=True)
class _Tile:
    """Neighbouring pixels of a row, and a group of output channels."""

    group: ir.Value
    row: ir.Value
    column: ir.Value
    pixels: int


def emit_convolution(module: ir.Module, name: str, convolution: Convolution, vectors: VectorUnit) -> ir.Function:
    """Add the kernel: a function of the addresses of input, weights, what is added to the output, output, and sums.

    The addresses of features are those of their first number, border included. Weights are as `packed_weights` has
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
    """Emits one kernel."""

    def __init__(self, module: ir.Module, name: str, spec: Convolution, vectors: VectorUnit) -> None:
        self._spec = spec
        self._vectors_per_tile = spec.vectors_per_tile()
        self._registers, self._caches = vectors.registers, vectors.caches
        self._emitter = Emitter(module, name, [POINTER] * 5, vectors)
        self._dot = dot_product_of(spec.source.element_type, self._emitter)
        self._input, self._weights, self._addend, self._output, self._sums = self._emitter.function.args
        self._promise()

    def _promise(self) -> None:
        """What holds for the addresses: each is of a region of its own, but for what is added in the output's place.

        Regions of an arena are disjoint and aligned, and `Program.convolve` refuses an output in the input's place.
        What is added can only be in the output's place where it has the output's layout; then neither is promised to
        be apart from the other. Where nothing is added its address is not used.
        """
        promise, in_place = self._emitter.promise, self._spec.residual == self._spec.target
        for argument in (self._input, self._weights):
            promise(argument, "noalias", "readonly", alignment=ALIGNMENT)
        promise(self._addend, "readonly", *[] if in_place else ["noalias"], alignment=ALIGNMENT)
        promise(self._output, *[] if in_place else ["noalias"], alignment=ALIGNMENT)
        promise(self._sums, "noalias", alignment=ALIGNMENT)

    def emit(self) -> ir.Function:
        """The whole function."""
        emit, target = self._emitter, self._spec.target
        if self._spec.pools:
            self._emitter.each(target.blocks, lambda block: emit.store(emit.zero, self._sums, (block, emit.lanes)))
        rows = self._spec.row_block(self._caches)

        def chunk(index: ir.Value) -> None:
            first = emit.builder.mul(index, ir.Constant(index.type, rows))
            emit.each(
                target.blocks // self._vectors_per_tile,
                lambda group: self._parts(lambda part: self._rows(group, first, rows, part)),
            )

        self._emitter.each(target.height // rows, chunk)
        emit.end()
        return emit.function

    def _parts(self, body: Callable[[_Part], None]) -> None:
        """Do something for each part of the input in turn."""
        emit, blocks, count = self._emitter, self._spec.source.blocks, self._spec.reduction_block(self._caches)
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
        for count, pixels in self._spec.tiles(self._spec.target.width, self._registers):
            self._emitter.each(count, self._tile_at(group, row, first, pixels, part))
            first += count * pixels

    def _tile_at(
        self, group: ir.Value, row: ir.Value, first: int, pixels: int, part: _Part
    ) -> Callable[[ir.Value], None]:
        def tile(index: ir.Value) -> None:
            emit, spec, source = self._emitter, self._spec, self._spec.source
            builder = emit.builder
            column = builder.add(ir.Constant(index.type, first), builder.mul(index, ir.Constant(index.type, pixels)))
            here = _Tile(group, row, column, pixels)
            inputs = emit.address(
                self._input,
                source.start(spec.padding),
                (row, spec.stride * source.row),
                (column, spec.stride * source.pixel),
            )
            weights = emit.address(self._weights, (group, spec.channels_per_tile * (self._dot.constants + spec.taps)))
            sums = self._begun(here, weights, part)
            sums = self._summed(sums, inputs, weights, pixels, part)
            self._write(sums, here, weights, part)

        return tile

    # The vectors of a tile are a list: those of some output channels for every pixel, and then those of the next.

    def _addresses(self, tile: _Tile, features: ir.Value, layout: Layout) -> list[ir.Value]:
        """Where the vectors of a tile are."""
        emit = self._emitter
        first = emit.address(
            features,
            layout.start(),
            (tile.group, self._vectors_per_tile * layout.block),
            (tile.row, layout.row),
            (tile.column, layout.pixel),
        )
        return [
            emit.address(first, vector * layout.block + pixel * layout.pixel)
            for vector in range(self._vectors_per_tile)
            for pixel in range(tile.pixels)
        ]

    def _constant(self, weights: ir.Value, number: int, pixels: int) -> list[ir.Value]:
        """One of the constants before the weights, for the vectors of a tile."""
        emit = self._emitter
        at = number * self._spec.channels_per_tile
        vectors = [emit.load(weights, at + vector * emit.lanes) for vector in range(self._vectors_per_tile)]
        return [each for each in vectors for _ in range(pixels)]

    def _begun(self, tile: _Tile, weights: ir.Value, part: _Part) -> list[ir.Value]:
        """The sums of a tile before a part."""
        target = self._spec.target
        if not part.begins:
            return [target.element_type.load(self._emitter, at) for at in self._addresses(tile, self._output, target)]
        return self._dot.begun(
            self._vectors_per_tile * tile.pixels,
            lambda number: self._constant(weights, number, tile.pixels),
            lambda sums: self._with_addend(sums, tile),
        )

    def _with_addend(self, sums: list[ir.Value], tile: _Tile) -> list[ir.Value]:
        emit, residual = self._emitter, self._spec.residual
        if residual is None:
            return sums
        addresses = self._addresses(tile, self._addend, residual)
        return [
            emit.builder.fadd(each, residual.element_type.load(emit, at))
            for each, at in zip(sums, addresses, strict=True)
        ]

    def _summed(
        self, sums: list[ir.Value], inputs: ir.Value, weights: ir.Value, pixels: int, part: _Part
    ) -> list[ir.Value]:
        """The sums of a tile with the products of a part."""
        emit, spec, source, products = self._emitter, self._spec, self._spec.source, self._dot
        vectors_per_tile, lanes = self._vectors_per_tile, emit.lanes
        step = source.words * spec.channels_per_tile  # words of weights for one offset of the filter

        # The loops are left to run: unrolled, the same inputs at several offsets would be kept in registers, of which
        # there are none to spare.
        def offset(index: ir.Value, down: ir.Value, right: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            sums = carried.copy()
            block = emit.builder.add(part.first, index)
            here = emit.address(inputs, (block, source.block), (down, source.row), (right, source.pixel))
            taps = emit.address(
                weights,
                products.constants * spec.channels_per_tile,
                (block, spec.kernel**2 * step),
                (down, spec.kernel * step),
                (right, step),
            )
            for word in range(source.words):
                row = [
                    products.weights(taps, word * spec.channels_per_tile + vector * lanes)
                    for vector in range(vectors_per_tile)
                ]
                for pixel in range(pixels):
                    broadcast = products.inputs(here, pixel * spec.stride * source.pixel + word * source.lane)
                    for vector in range(vectors_per_tile):
                        at = vector * pixels + pixel
                        sums[at] = products.add(sums[at], row[vector], broadcast)
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

    def _write(self, sums: list[ir.Value], tile: _Tile, weights: ir.Value, part: _Part) -> None:
        """What is done with the sums of a tile after a part."""
        emit, spec = self._emitter, self._spec
        if part.ends:
            sums = self._dot.ended(
                sums,
                lambda number: self._constant(weights, number, tile.pixels),
                lambda sums: self._with_addend(sums, tile),
            )
        if part.ends and spec.relu:
            sums = [emit.larger(each, emit.zero) for each in sums]
        for each, at in zip(sums, self._addresses(tile, self._output, spec.target), strict=True):
            spec.target.element_type.store(emit, each, at)
        if not (part.ends and spec.pools):
            return
        for vector in range(self._vectors_per_tile):
            place = (tile.group, spec.channels_per_tile), vector * emit.lanes
            total = emit.load(self._sums, *place)
            for each in sums[vector * tile.pixels : (vector + 1) * tile.pixels]:
                total = emit.builder.fadd(total, each)
            emit.store(total, self._sums, *place)
