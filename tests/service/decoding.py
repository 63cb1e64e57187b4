"""A decoder whose output tells every pixel of a small image."""

from __future__ import annotations

import numpy as np

from artifact.preprocessing import Preprocessing, UInt8Array
from service.images.decoding import ImageDecoder

SIDE = 4
PLAIN = Preprocessing(resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
DECODER = ImageDecoder(PLAIN, max_bytes=100_000, max_pixels=50_000_000)
COLOURS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def seen_pixels(data: bytes) -> UInt8Array:
    """What the network sees of an image file, as (H, W, 3) uint8."""
    return np.rint(DECODER.decode(data).transpose(1, 2, 0) * 255).astype(np.uint8)
