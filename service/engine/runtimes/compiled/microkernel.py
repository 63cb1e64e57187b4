"""The microkernel of a convolution: the sums of a tile stay in registers from the first product to the last.

A tile is a few neighbouring pixels of a row and a few vectors of output channels. Each step takes one word of the input
channels at one offset of the filter: its weights are loaded as vectors over the output channels, and the input of each
pixel is broadcast over a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.dot_products import DotProduct
from service.engine.runtimes.compiled.emitter import Emitter


@dataclass(frozen=True)
class Slice:
    """Some of the input's blocks of channels, which are summed for all pixels before the next.

    Attributes:
        first: block.
        count: of blocks.
        begins, ends: whether it is the first or the last slice.
    """

    first: ir.Value
    count: int
    begins: bool
    ends: bool


@dataclass(frozen=True)
class Tile:
    """What is computed together. Its vectors are in a list: those of the first output channels for every pixel first.

    Attributes:
        channels: index of the tile among those of all output channels.
        row, column: of the first pixel.
        pixels: how many.
    """

    channels: ir.Value
    row: ir.Value
    column: ir.Value
    pixels: int


class Microkernel:
    """Emits the microkernel.

    Args:
        emit: of the kernel.
        spec: the convolution.
        dot: its products.
    """

    def __init__(self, emit: Emitter, spec: Convolution, dot: DotProduct) -> None:
        self._emitter = emit
        self._spec = spec
        self._dot = dot
        self._vectors_per_tile = spec.vectors_per_tile()

    def accumulate(
        self, sums: list[ir.Value], inputs: ir.Value, weights: ir.Value, pixels: int, part: Slice
    ) -> list[ir.Value]:
        """The sums of a tile with the products of a part."""
        emit, spec, source, dot = self._emitter, self._spec, self._spec.source, self._dot
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
                dot.constants * spec.channels_per_tile,
                (block, spec.kernel**2 * step),
                (down, spec.kernel * step),
                (right, step),
            )
            for word in range(source.words):
                row = [
                    dot.weights(taps, word * spec.channels_per_tile + vector * lanes)
                    for vector in range(vectors_per_tile)
                ]
                for pixel in range(pixels):
                    broadcast = dot.inputs(here, pixel * spec.stride * source.pixel + word * source.lane)
                    for vector in range(vectors_per_tile):
                        at = vector * pixels + pixel
                        sums[at] = dot.add(sums[at], row[vector], broadcast)
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
