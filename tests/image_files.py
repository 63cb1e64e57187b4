"""Image files as bytes: sound ones, and broken ones made by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from artifact.preprocessing import UInt8Array
from tests.networks import colour_fields


def encoded(image: Image.Image | UInt8Array, format_: str = "PNG", **parameters: Any) -> bytes:
    """An image file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, format_, **parameters)
    return file.getvalue()


def pngs(count: int, seed: int = 3) -> list[bytes]:
    """PNGs of colour fields, which the small network classifies as they are."""
    return [encoded(pixels) for pixels in colour_fields(count, seed)]


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of any size with smooth areas, edges and noise, so that resampling mistakes show."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / 7 + phase) + np.cos(columns / 5 - phase) for phase in (0, 1, 2)]
    pixels = 128 + 40 * np.stack(waves, axis=-1) + random.normal(0, 10, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def hollow_png(width: int, height: int) -> bytes:
    """A PNG that says it is large and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def solid(value: int) -> bytes:
    """A PNG of 2 x 2 pixels of one grey, by which an echoing runtime can be told what it answered."""
    return encoded(np.full((2, 2, 3), value, np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
