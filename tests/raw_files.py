"""Uncompressed TIFFs, BMPs and PNGs of samples as they are, with headers that say what a test wants them to say."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.image_files import chunk

Samples = npt.NDArray[np.integer[Any]]
"""(H, W, channels), each sample as it is to be stored, signed or not."""


def raw_tiff(
    samples: Samples,
    bits: int,
    photometric: int,
    order: str = "<",
    form: int = 1,
    planar: bool = False,
    deflate: bool = False,
    extra: int | None = None,
    tags: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """A TIFF of one strip, or of one for each plane.

    Args:
        samples: of the image.
        bits: of each sample, in rows of whole bytes.
        photometric: PhotometricInterpretation.
        order: of bytes, "<" or ">".
        form: SampleFormat: 1 unsigned, 2 signed, 3 floating-point (the samples are then the bits of the floats).
        planar: whether each channel is a plane of its own.
        deflate: whether it is compressed.
        extra: ExtraSamples of the last channel: 1 associated alpha, 2 alpha.
        tags: further entries: number, type (3 of 16 bits, 4 of 32, 1 of bytes) and values.
    """
    height, width, channels = samples.shape
    planes = [samples[..., [channel]] for channel in range(channels)] if planar else [samples]
    strips = [_packed(plane, bits, order) for plane in planes]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    entries: list[tuple[int, int, Sequence[int]]] = [
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [bits] * channels),
        (259, 3, [8 if deflate else 1]),
        (262, 3, [photometric]),
        (273, 4, starts[:-1]),
        (277, 3, [channels]),
        (278, 4, [height]),
        (279, 4, [len(strip) for strip in strips]),
        (284, 3, [2 if planar else 1]),
        (339, 3, [form] * channels),
        *([(338, 3, [extra])] if extra is not None else []),
        *tags,
    ]
    body = b"".join(strips) + b"\0" * (starts[-1] % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return head + body + _directory(sorted(entries), order, 8 + len(body))


def _directory(entries: list[tuple[int, int, Sequence[int]]], order: str, start: int) -> bytes:
    table, behind = struct.pack(order + "H", len(entries)), b""
    end = start + 2 + 12 * len(entries) + 4
    for number, kind, values in entries:
        content = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind] * len(values), *values)
        if len(content) > 4:
            field = struct.pack(order + "I", end + len(behind))
            behind += content + b"\0" * (len(content) % 2)
        else:
            field = content.ljust(4, b"\0")
        table += struct.pack(order + "HHI", number, kind, len(values)) + field
    return table + bytes(4) + behind


def _packed(samples: Samples, bits: int, order: str = ">") -> bytes:
    rows = samples.reshape(len(samples), -1).astype(np.int64) % (1 << bits)
    if bits % 8 == 0:
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    ones = ((rows[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
    return np.packbits(ones.reshape(len(rows), -1), axis=1).tobytes()


def raw_bmp(
    pixels: npt.NDArray[np.unsignedinteger[Any]],
    masks: Sequence[int],
    header_bytes: int = 56,
    bottom_up: bool = True,
    compression: int = 3,
) -> bytes:
    """A BMP with masks (BI_BITFIELDS) of red, green, blue and, in headers that have it, alpha.

    Args:
        pixels: (H, W) packed pixels, uint16 or uint32.
        masks: of the colours.
        header_bytes: size of the header: 40, 52, 56, 108 or 124.
        bottom_up: whether the last row comes first.
        compression: 3, or 6 for a header of 40 bytes with an alpha mask behind it.
    """
    height, width = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    rows = pixels[::-1] if bottom_up else pixels
    padding = bytes(-width * bits // 8 % 4)
    body = b"".join(row.tobytes() + padding for row in rows)
    told = struct.pack(f"<{len(masks)}I", *masks)
    size = (header_bytes, width, height if bottom_up else -height)
    header = struct.pack("<IiiHHIIiiII", *size, 1, bits, compression, 0, 0, 0, 0, 0)
    header = (header + told).ljust(header_bytes, b"\0")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + body


def raw_png(samples: Samples, bits: int, colour_type: int, *chunks: bytes, behind: bytes = b"") -> bytes:
    """A PNG with these chunks between its header and its pixels, and others behind them."""
    height, width, _ = samples.shape
    rows = [b"\0" + _packed(row[None], bits) for row in samples]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + behind + chunk(b"IEND", b"")


def gamma_chunk(gamma: float) -> bytes:
    """A PNG's gAMA."""
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chromaticity_chunk(chromaticities: Sequence[float]) -> bytes:
    """A PNG's cHRM: x and y of white, red, green and blue."""
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in chromaticities)))


def profile_chunk(profile: bytes, compression: int = 0) -> bytes:
    """A PNG's iCCP."""
    return chunk(b"iCCP", b"profile\0" + bytes([compression]) + zlib.compress(profile))
