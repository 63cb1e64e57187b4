"""The epilogue of a convolution: what a residual network does next is done before the sums of a tile leave registers.

That is bias, scale, the residual sum, ReLU, the conversion to the output's element type, and the sums over all pixels,
which the next gate needs. Bias and residual are where the sums begin, if those are in float32.
"""

from __future__ import annotations

from llvmlite import ir

from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.dot_products import DotProduct
from service.engine.runtimes.compiled.emitter import Emitter
from service.engine.runtimes.compiled.layout import Layout
from service.engine.runtimes.compiled.microkernel import Slice, Tile


class Epilogue:
    """Emits the epilogue.

    Args:
        emit: of the kernel.
        spec: the convolution.
        dot: its products.
        residual, output, sums: addresses of the three, the last of which is of the sums over all pixels.
    """

    def __init__(
        self,
        emit: Emitter,
        spec: Convolution,
        dot: DotProduct,
        residual: ir.Value,
        output: ir.Value,
        sums: ir.Value,
    ) -> None:
        self._emitter = emit
        self._spec = spec
        self._dot = dot
        self._residual, self._output, self._sums = residual, output, sums
        self._vectors_per_tile = spec.vectors_per_tile()

    def clear(self) -> None:
        """Before all tiles: the sums over all pixels are zero."""
        emit = self._emitter
        if self._spec.pools:
            emit.each(self._spec.target.blocks, lambda block: emit.store(emit.zero, self._sums, (block, emit.lanes)))

    def initial(self, tile: Tile, weights: ir.Value, part: Slice) -> list[ir.Value]:
        """The sums of a tile before a slice."""
        target = self._spec.target
        if not part.begins:
            return [target.element_type.load(self._emitter, at) for at in self._addresses(tile, self._output, target)]
        return self._dot.initial(
            self._vectors_per_tile * tile.pixels,
            lambda number: self._constant(weights, number, tile.pixels),
            lambda sums: self._with_residual(sums, tile),
        )

    def write(self, sums: list[ir.Value], tile: Tile, weights: ir.Value, part: Slice) -> None:
        """What is done with the sums of a tile after a slice."""
        emit, spec = self._emitter, self._spec
        if part.ends:
            sums = self._dot.final(
                sums,
                lambda number: self._constant(weights, number, tile.pixels),
                lambda sums: self._with_residual(sums, tile),
            )
        if part.ends and spec.relu:
            sums = [emit.larger(each, emit.zero) for each in sums]
        for each, at in zip(sums, self._addresses(tile, self._output, spec.target), strict=True):
            spec.target.element_type.store(emit, each, at)
        if not (part.ends and spec.pools):
            return
        for vector in range(self._vectors_per_tile):
            terms = (tile.channels, spec.channels_per_tile), vector * emit.lanes
            total = emit.load(self._sums, *terms)
            for each in sums[vector * tile.pixels : (vector + 1) * tile.pixels]:
                total = emit.builder.fadd(total, each)
            emit.store(total, self._sums, *terms)

    def _with_residual(self, sums: list[ir.Value], tile: Tile) -> list[ir.Value]:
        emit, residual = self._emitter, self._spec.residual
        if residual is None:
            return sums
        addresses = self._addresses(tile, self._residual, residual)
        return [
            emit.builder.fadd(each, residual.element_type.load(emit, at))
            for each, at in zip(sums, addresses, strict=True)
        ]

    def _addresses(self, tile: Tile, features: ir.Value, layout: Layout) -> list[ir.Value]:
        """Where the vectors of a tile are."""
        emit = self._emitter
        first = emit.address(
            features,
            layout.start(),
            (tile.channels, self._vectors_per_tile * layout.block),
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
