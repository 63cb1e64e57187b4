"""How features and weights lie in memory: NCHWc, in blocks of as many channels as a vector has lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.data_caches import USUAL_CACHES

# How far apart blocks are moved that would compete for the same sets of the first-level cache, in words.
_APART = 64


@dataclass(frozen=True)
class Layout:
    """Features (C, H, W) in memory, with a border that stays zero; strides and sizes in words of 32 bits.

    Attributes:
        channels, height, width: C, H and W.
        padding: pixels of border on each side, what convolutions that read the features reach beyond them.
        lanes: channels in a block.
        element_type: of the features.
        block: from one block of channels to the next.
        row, pixel: from one row to the next, and from one pixel of a row to the next.
        lane: from one word of a pixel's channels to the next.
    """

    channels: int
    height: int
    width: int
    padding: int
    lanes: int
    element_type: ElementType
    block: int
    row: int
    pixel: int
    lane: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.channels // self.lanes

    @property
    def words(self) -> int:
        """How many words a pixel's channels in a block take."""
        return self.lanes // self.element_type.value

    @property
    def size(self) -> int:
        """Of the whole, border included, up to the last word that is read or written."""
        corner = (self.height + 2 * self.padding - 1) * self.row + (self.width + 2 * self.padding - 1) * self.pixel
        return (self.blocks - 1) * self.block + corner + (self.words - 1) * self.lane + 1

    def start(self, reach: int = 0) -> int:
        """Where the first pixel is, or one `reach` pixels above and to the left of it."""
        return (self.padding - reach) * (self.row + self.pixel)

    def as_one_row(self) -> Layout:
        """The same features as a single row of pixels; they must have no border."""
        return replace(self, height=1, width=self.height * self.width)


def nchwc(
    channels: int,
    height: int,
    width: int,
    padding: int,
    lanes: int,
    element_type: ElementType = ElementType.FLOAT32,
    way: int = USUAL_CACHES.l1_way,
) -> Layout:
    """Features as NCHWc: in blocks of c channels, those of a block side by side.

    A pixel's channels are read together. Blocks that are nearly a multiple of `way` apart, which is of the first-level
    cache and in bytes, would drive each other out of it, so such blocks are moved apart.
    """
    words = way // 4
    pixel = lanes // element_type.value
    row = (width + 2 * padding) * pixel
    block = (height + 2 * padding) * row
    if block >= words:
        block += (_APART - block) % words
    return Layout(channels, height, width, padding, lanes, element_type, block, row, pixel, lane=1)


def nchw(channels: int, side: int, padding: int) -> Layout:
    """An image as it comes, NCHW: one channel after the other, a single block."""
    row = side + 2 * padding
    size = channels * row**2
    return Layout(channels, side, side, padding, channels, ElementType.FLOAT32, size, row, pixel=1, lane=row**2)


def space_to_depth(channels: int, side: int, padding: int) -> Layout:
    """An image after space to depth, in which a pixel holds two by two of the original's, in bfloat16: a single block.

    A word has two neighbours of a row, so that a row of the original, once it is in bfloat16, lies there as it comes.
    """
    half = side // 2
    row = half + 2 * padding
    lanes = 4 * channels
    return Layout(lanes, half, half, padding, lanes, ElementType.BFLOAT16, 2 * channels * row**2, row, 1, lane=row**2)


def packed_weights(
    weights: npt.NDArray[np.generic], constants: Sequence[Float32Array], input_lanes: int, tile: int
) -> Float32Array:
    """The weights of a convolution in the order its kernel reads them.

    Args:
        weights: (K, C, kh, kw), numbers of 32, 16 or 8 bits.
        constants: (K,) each, what comes before the weights of a tile.
        input_lanes: channels in a block of the input.
        tile: output channels of a tile.

    Returns:
        For each tile its constants (…, tile) and weights (C / lanes, kh, kw, words of lanes, tile, those of a word),
        all in one dimension of words.
    """
    outputs, inputs, height, width = weights.shape
    packed = 4 // weights.itemsize
    shape = outputs // tile, tile, inputs // input_lanes, input_lanes // packed, packed, height, width
    ordered = np.ascontiguousarray(weights.reshape(shape).transpose(0, 2, 5, 6, 3, 1, 4))
    # All of one type: several numbers in a word may look like one that is none, which would not survive a cast.
    words = ordered.view(np.float32).reshape(outputs // tile, -1)
    before = [np.asarray(each, np.float32).reshape(outputs // tile, tile) for each in constants]
    return np.concatenate([*before, words], axis=1).ravel()


def padded_outputs(weights: Float32Array, bias: Float32Array, multiple: int) -> tuple[Float32Array, Float32Array]:
    """Weights (K, …) and bias (K,) with zeros for more outputs, up to a multiple."""
    missing = -len(bias) % multiple
    return np.concatenate([weights, np.zeros((missing, *weights.shape[1:]), np.float32)]), np.pad(bias, (0, missing))
