"""PNGs with damaged ancillary chunks, which a reader has to ignore (PNG, third edition, section 13.2)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

_SIGNATURE_BYTES = 8
_IMAGE_END = b"\0\0\0\0IEND\xaeB`\x82"
# Ancillary chunks that tell how the pixels look.
_TELLING = (b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf")


def without_damaged_chunks(data: bytes) -> bytes:
    """The file with its critical chunks and, of the ancillary, those that are sound and tell how its pixels look."""
    parts, told = [data[:_SIGNATURE_BYTES]], set()
    for kind, start, end in _chunks(data):
        chunk = data[start:end]
        if kind[0] & 0x20:
            if kind not in _TELLING or kind in told:
                continue
            told.add(kind)  # whatever it is: there may be thousands of them
            if not _is_sound(data, parts, chunk):
                continue
        parts.append(chunk)
    return b"".join(parts)


def without_trailing_chunks(data: bytes) -> bytes:
    """The file without what stands behind its pixels, which says nothing of them but may be damaged; eXIf is kept.

    Damaged files and animations are returned as they are.
    """
    ends = 0
    behind: list[tuple[bytes, int, int]] = []
    for kind, start, end in _chunks(data):
        if kind == b"acTL":
            return data
        if kind == b"IDAT":
            ends, behind = end, []
        elif ends and kind != b"IEND":
            behind.append((kind, start, end))
    if not ends or not behind:
        return data
    kept = [data[start:end] for kind, start, end in behind if kind == b"eXIf"]
    return b"".join([data[:ends], *kept, _IMAGE_END])


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of every whole chunk, where it starts and where it ends; the last may be cut off."""
    start = _SIGNATURE_BYTES
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + 12 + length
        if kind == b"IEND":
            return
        start += 12 + length


def _is_sound(data: bytes, before: list[bytes], chunk: bytes) -> bool:
    """Whether its checksum is right and the decoder takes it, behind the critical chunks before it."""
    if len(chunk) < 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    critical = [part for part in before[1:] if not part[4] & 0x20 and part[4:8] != b"IDAT"]
    pixels = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    try:
        with Image.open(io.BytesIO(b"".join([data[:_SIGNATURE_BYTES], *critical, chunk, pixels])), formats=["PNG"]):
            return True
    except Exception:  # whatever it finds wrong
        return False
