"""What images are likely to cost, told before anything is decoded: a first guess from the header, then experience."""

from __future__ import annotations

import io
import math
from collections.abc import Hashable
from typing import NamedTuple

import imagesize

from artifact.formats import format_of

# Where the size stands, in most files; of the others only the bytes are known.
_HEAD_BYTES = 16_384
# First guesses: seconds a pixel of what a decoder makes, and a byte of what it reads.
_PIXEL_S, _BYTE_S = 25e-9, 15e-9
# Above this an image is dear, in seconds.
_DEAR_S = 0.05
# How fast a kind becomes dear. It is cheap at once where one image was: dear ones that were taken for such are given up
# soon, while cheap ones that were taken for dear would wait behind others.
_RISE = 0.02
# Widths and heights that headers claim have no end; no image of so many pixels is read.
_MOST_PIXEL_BITS = 40


class Kind(NamedTuple):
    """Images that should cost about the same: their format, and their pixels and bytes as powers of two."""

    format: str | None
    pixels: int
    size: int


TENSOR = Kind("tensor", 0, 0)
"""What the network takes as it is; nothing is decoded."""


class DecodingCosts:
    """Learns what each kind of image costs. There are a few thousand kinds.

    Attributes:
        longest_s: that one image may take, in seconds.
    """

    def __init__(self, longest_s: float) -> None:
        self.longest_s = longest_s
        self._seconds: dict[Hashable, float] = {}

    def kind(self, data: bytes) -> Kind:
        """The kind of an image file, from its first bytes; nothing is decoded."""
        found = format_of(data)
        if found is None:  # it will be refused
            return Kind(None, 0, len(data).bit_length())
        width, height = imagesize.get(io.BytesIO(data[:_HEAD_BYTES]), exif_rotation=False)
        pixels = int(width) * int(height) if width > 0 and height > 0 else 0
        return Kind(found, min(pixels.bit_length(), _MOST_PIXEL_BITS), len(data).bit_length())

    def is_dear(self, kind: Kind) -> bool:
        """Whether an image is likely to take far longer than most."""
        return self.seconds(kind) > _DEAR_S

    def images(self, kind: Kind) -> int:
        """As how many images that are not dear one counts."""
        return max(1, math.ceil(self.seconds(kind) / _DEAR_S))

    def seconds(self, kind: Kind) -> float:
        """How long an image is likely to take a worker, in seconds."""
        guess = _PIXEL_S * (1 << kind.pixels) + _BYTE_S * (1 << kind.size)
        return min(self._seconds.get(kind, guess), self.longest_s)

    def note(self, kind: Hashable, seconds: float) -> None:
        """Tell how long one has taken."""
        known = self._seconds.get(kind, seconds)
        self._seconds[kind] = min(seconds, known + _RISE * (seconds - known))
