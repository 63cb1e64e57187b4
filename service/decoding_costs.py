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
# How much the newest image counts against all earlier ones of its kind.
_NEWEST = 0.1


class Kind(NamedTuple):
    """Images that should cost about the same: their format, and their pixels and bytes as powers of two."""

    format: str | None
    pixels: int
    size: int


class DecodingCosts:
    """Learns what each kind of image costs. There are a few thousand kinds."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def kind(self, data: bytes) -> Kind:
        """The kind of an image file, from its first bytes; nothing is decoded."""
        width, height = imagesize.get(io.BytesIO(data[:_HEAD_BYTES]), exif_rotation=False)
        pixels = int(width) * int(height) if width > 0 and height > 0 else 0
        return Kind(format_of(data), pixels.bit_length(), len(data).bit_length())

    def is_dear(self, kind: Kind) -> bool:
        """Whether an image is likely to take far longer than most."""
        return self.seconds(kind) > _DEAR_S

    def images(self, kind: Kind) -> int:
        """As how many images that are not dear one counts."""
        return max(1, math.ceil(self.seconds(kind) / _DEAR_S))

    def seconds(self, kind: Kind) -> float:
        """How long an image is likely to take a worker, in seconds."""
        return self._seconds.get(kind) or _PIXEL_S * (1 << kind.pixels) + _BYTE_S * (1 << kind.size)

    def note(self, kind: Hashable, seconds: float) -> None:
        """Tell how long one has taken."""
        known = self._seconds.get(kind)
        self._seconds[kind] = seconds if known is None else known + _NEWEST * (seconds - known)
