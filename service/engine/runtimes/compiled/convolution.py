"""What a convolution is, and how its loops are blocked for registers and caches."""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layout import Layout
from service.engine.runtimes.data_caches import Caches

# Most vectors of output channels in a tile; with more, fewer pixels share a load of weights.
_MOST_VECTORS = 2
_MOST_VECTORS_OF_ONE_PIXEL = 8  # which has no pixels to share anything with
# Bytes of a word; sizes of features and weights are in words.
_WORD = 4


@dataclass(frozen=True)
class Convolution:
    """What a kernel does; one is made for all convolutions that are alike in this.

    Attributes:
        kernel, stride, padding: in pixels, the same both ways.
        source, target: layouts of input and output.
        relu: whether negative outputs become zero.
        residual: layout of what is added to the output, if anything is: it may be the output's, and in its place.
        pools: whether the outputs are also summed over all pixels.
    """

    kernel: int
    stride: int
    padding: int
    source: Layout
    target: Layout
    relu: bool = False
    residual: Layout | None = None
    pools: bool = False

    def vectors_per_tile(self) -> int:
        """How many vectors of output channels a tile has: its register blocking, with the pixels of `tiles`."""
        most = _MOST_VECTORS_OF_ONE_PIXEL if self.target.width * self.target.height == 1 else _MOST_VECTORS
        return max(count for count in range(1, most + 1) if self.target.blocks % count == 0)

    @property
    def channels_per_tile(self) -> int:
        """How many output channels a tile has."""
        return self.vectors_per_tile() * self.target.lanes

    @property
    def taps(self) -> int:
        """Words of weights for one output channel."""
        return self.kernel**2 * self.source.blocks * self.source.words

    def row_block(self, caches: Caches) -> int:
        """How many rows are done for the output channels of one tile before those of the next.

        All of them, unless all weights stay in the second-level cache, of which they may take three
        eighths, and the input does not, which may take half as much.
        """
        height, most_weights, most_input = self.target.height, caches.l2 * 3 // 8, caches.l2 * 3 // 16
        if self.taps * self.target.channels * _WORD > most_weights:
            return height
        row = self.source.blocks * self.source.words * self.source.width * self.stride * _WORD
        return max(rows for rows in _divisors(height) if rows * row <= most_input or rows == 1)

    def reduction_block(self, caches: Caches) -> int:
        """How many blocks of input channels are summed for all pixels before the next: a slice of the reduction.

        The weights for a tile's channels are read again for every tile of pixels. Where they are more than twice the
        first-level cache, they are read in slices of at most three quarters of that cache, so that they stay there.

        Meanwhile the sums are where the output will be, which has to have the bits for that. Element types of fewer
        than 32 have not, and then weights have fewer as well, so that nothing is gained.
        """
        blocks = self.source.blocks
        weights = self.kernel**2 * self.source.lanes * self.channels_per_tile * _WORD  # of one block
        if blocks * weights <= 2 * caches.l1 or {self.source.element_type, self.target.element_type} != {
            ElementType.FLOAT32
        }:
            return blocks
        return max(count for count in _divisors(blocks) if count * weights <= caches.l1 * 3 // 4 or count == 1)

    def tiles(self, width: int, registers: int) -> list[tuple[int, int]]:
        """How a row is cut: as few tiles as the registers allow, of nearly the same width, as counts and pixels."""
        most = max(1, registers * 3 // 4 // self.vectors_per_tile())  # what is left is for weights and inputs
        tiles = -(-width // most)
        narrow, wider = width // tiles, width % tiles
        return [(count, pixels) for count, pixels in ((wider, narrow + 1), (tiles - wider, narrow)) if count]


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
