"""How features and weights lie in memory: in blocks of as many channels as a vector has lanes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from artifact.preprocessing import Float32Array

# Both in numbers: after how many the places in a first-level cache repeat, and how far apart blocks are moved.
_CACHE_WAY, _APART = 1024, 64


@dataclass(frozen=True)
class Layout:
    """Features (C, H, W) in memory, with a border that stays zero; strides and sizes in numbers of float32.

    Attributes:
        channels, height, width: C, H and W.
        padding: pixels of border on each side, what convolutions that read the features reach beyond them.
        lanes: channels in a block.
        block: from one block of channels to the next.
        row, pixel: from one row to the next, and from one pixel of a row to the next.
        lane: from one channel of a block to the next.
    """

    channels: int
    height: int
    width: int
    padding: int
    lanes: int
    block: int
    row: int
    pixel: int
    lane: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.channels // self.lanes

    @property
    def size(self) -> int:
        """Of the whole, border included."""
        return self.blocks * self.block

    def start(self, reach: int = 0) -> int:
        """Where the first pixel is, or one `reach` pixels above and to the left of it."""
        return (self.padding - reach) * (self.row + self.pixel)

    def as_one_row(self) -> Layout:
        """The same features as a single row of pixels; they must have no border."""
        return replace(self, height=1, width=self.height * self.width)


def blocked(channels: int, height: int, width: int, padding: int, lanes: int) -> Layout:
    """Features in blocks, the channels of a block side by side.

    A pixel's channels are read together. In a cache that takes an address modulo 4 KiB to say where its content may be,
    blocks that are nearly a multiple of that apart would drive each other out, so such blocks are moved apart.
    """
    row = (width + 2 * padding) * lanes
    block = (height + 2 * padding) * row
    if block >= _CACHE_WAY:
        block += (_APART - block) % _CACHE_WAY
    return Layout(channels, height, width, padding, lanes, block, row, pixel=lanes, lane=1)


def planar(channels: int, side: int, padding: int) -> Layout:
    """An image as it comes, one channel after the other: a single block."""
    row = side + 2 * padding
    return Layout(channels, side, side, padding, channels, channels * row**2, row, pixel=1, lane=row**2)


def packed_weights(weights: Float32Array, bias: Float32Array, input_lanes: int, group: int) -> Float32Array:
    """The weights of a convolution in the order its kernel reads them.

    Args:
        weights: (K, C, kh, kw).
        bias: (K,).
        input_lanes: channels in a block of the input.
        group: output channels that are computed together.

    Returns:
        For each group its bias (group,) and weights (C / lanes, kh, kw, lanes, group), all in one dimension.
    """
    outputs, inputs, height, width = weights.shape
    groups = weights.reshape(outputs // group, group, inputs // input_lanes, input_lanes, height, width)
    ordered = groups.transpose(0, 2, 4, 5, 3, 1).reshape(outputs // group, -1)
    return np.concatenate([bias.reshape(outputs // group, group), ordered], axis=1).ravel()


def padded_outputs(weights: Float32Array, bias: Float32Array, multiple: int) -> tuple[Float32Array, Float32Array]:
    """Weights (K, …) and bias (K,) with zeros for more outputs, up to a multiple."""
    missing = -len(bias) % multiple
    return np.concatenate([weights, np.zeros((missing, *weights.shape[1:]), np.float32)]), np.pad(bias, (0, missing))
