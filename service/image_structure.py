"""Files of few pixels that take minutes to read, told from those that programs write, before they are decoded.

A file may hold hundreds of thousands of empty parts, and a progressive JPEG as many scans, each of which touches every
pixel. Neither is bounded by the pixels or by the bytes. So parts are counted, in the way the decoders find them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice, repeat

# Far above what programs write: at most 255 segments of a colour profile and a few hundred of metadata, ten scans,
# chunks of 4 KiB, blocks of 255 bytes.
_JPEG_PARTS, _JPEG_SCANS, _PNG_CHUNKS, _GIF_BLOCKS = 10_000, 100, 20_000, 100_000
# Pillow expands these in Python, byte by byte.
_RUN_LENGTH_BMP_BYTES = 4_000_000

# Not a marker: a byte 255 of the coded pixels (followed by 0), a restart between them, and filling.
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_JPEG_WITHOUT_LENGTH = {0x01, 0xC8, *range(0xD8, 0xDA), *range(0xF0, 0xFE)}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


def has_too_many_parts(data: bytes) -> bool:
    """Whether the file of an image has parts that no image needs; of what is no image it says no."""
    if data.startswith(b"\xff\xd8"):
        markers = list(islice(_jpeg_markers(data), _JPEG_PARTS + 1))
        return len(markers) > _JPEG_PARTS or markers.count(_JPEG_SCAN) > _JPEG_SCANS
    if data.startswith(b"\x89PNG"):
        return _exceeds(_png_chunks(data), _PNG_CHUNKS)
    if data.startswith(b"GIF8"):
        return _exceeds(_gif_blocks(data), _GIF_BLOCKS)
    if data.startswith(b"BM"):
        return len(data) > _RUN_LENGTH_BMP_BYTES and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    return False


def _exceeds(parts: Iterator[None], limit: int) -> bool:
    return next(islice(parts, limit, None), False) is None


def _jpeg_markers(data: bytes) -> Iterator[int]:
    """The markers up to the end of the image, and 0 for every byte between segments.

    Until the first scan Pillow steps over such bytes one by one, and over an end too.
    """
    start, scanning = 2, False
    while True:
        found = _JPEG_MARKER.search(data, start)
        if not scanning:
            yield from repeat(0, (found.start() if found else len(data)) - start)
        if not found:
            return
        (marker,) = found[1]
        yield marker
        scanning |= marker == _JPEG_SCAN
        if scanning and marker == _JPEG_END:
            return
        start = found.end()
        if marker not in _JPEG_WITHOUT_LENGTH:
            start += int.from_bytes(data[start : start + 2], "big")


def _png_chunks(data: bytes) -> Iterator[None]:
    start = 8
    while start + 8 <= len(data):
        yield None
        (length,) = struct.unpack_from(">I", data, start)
        start += 12 + length


def _gif_blocks(data: bytes) -> Iterator[None]:
    """Blocks before the first frame. What begins none is passed over byte by byte, as Pillow does it."""
    if len(data) < 13:
        return
    colours = data[10]
    start = 13 + (3 << (colours & 7) + 1 if colours & 0x80 else 0)
    while start < len(data) and data[start] not in b",;":
        yield None
        if data[start] != 0x21:
            start += 1
            continue
        start += 2
        while start < len(data) and (size := data[start]):
            yield None
            start += 1 + size
        start += 1
