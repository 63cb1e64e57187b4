from __future__ import annotations

import struct
import time

import pytest
from PIL import Image

from artifact.preprocessing import Preprocessing
from service.image_structure import has_too_many_parts
from service.images import CorruptImage, ImageDecoder
from tests.image_files import chunk, encoded, photograph

DECODER = ImageDecoder(Preprocessing(resize=32, crop=32, mean=(0, 0, 0), std=(1, 1, 1)), 20_000_000, 50_000_000)
RGB = photograph(64, 48)
JPEG, PNG, GIF = (encoded(RGB, format_) for format_ in ("JPEG", "PNG", "GIF"))
MEGABYTES = 10_000_000


def _in_jpeg(part: bytes) -> bytes:
    """A JPEG of ten megabytes with a part again and again before its pixels."""
    return JPEG[:2] + part * (MEGABYTES // len(part)) + JPEG[2:]


def _in_png(part: bytes, before: bytes) -> bytes:
    start = PNG.index(before) - 4
    return PNG[:start] + part * (MEGABYTES // len(part)) + PNG[start:]


def _in_gif(part: bytes, head: bytes = b"", tail: bytes = b"") -> bytes:
    start = GIF.index(b",")
    return GIF[:start] + head + part * (MEGABYTES // len(part)) + tail + GIF[start:]


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def many_scans(scans: int) -> bytes:
    """A progressive JPEG of 49 million pixels, of which one scan is repeated: 88 bytes for a pass over all of them."""
    data = encoded(Image.new("L", (7000, 7000)), "JPEG", progressive=True)
    starts = [start for start in range(len(data)) if data[start : start + 2] == b"\xff\xda"]
    return data[: starts[2]] + data[starts[1] : starts[2]] * scans + data[starts[2] :]


def _run_length_bmp() -> bytes:
    flat = encoded(Image.new("P", (3000, 3000)), "BMP")
    start = struct.unpack_from("<I", flat, 10)[0]
    return flat[:30] + struct.pack("<I", 1) + flat[34:start] + b"\1\0" * 2_500_000


BOMBS = {
    "scans": lambda: many_scans(2000),
    "EXIF segments": lambda: _in_jpeg(_segment(0xE1, b"Exif\0\0a")),
    "EXIF segments after an end": lambda: _in_jpeg(b"\xff\xd9" + _segment(0xE1, b"Exif\0\0a")),
    "EXIF segments behind a marker without length": lambda: _in_jpeg(
        b"\xff\xf0\xff\xff" + _segment(0xE1, b"Exif\0\0a") * 1000
    ),
    "JPEG comments": lambda: _in_jpeg(_segment(0xFE, b"a")),
    "JPEG tables": lambda: _in_jpeg(_segment(0xDB, bytes(65))),
    "JPEG filling": lambda: _in_jpeg(b"\xff"),
    "JPEG zeros": lambda: _in_jpeg(b"\xff\0"),
    "JPEG restarts": lambda: _in_jpeg(b"\xff\xd0"),
    "JPEG without a scan": lambda: JPEG[:20] + bytes(MEGABYTES),
    "PNG chunks": lambda: _in_png(chunk(b"abCd", b""), b"IDAT"),
    "PNG pixels": lambda: _in_png(chunk(b"IDAT", b""), b"IDAT"),
    "PNG text at the end": lambda: _in_png(chunk(b"tEXt", b"a\0b"), b"IEND"),
    "GIF comments": lambda: _in_gif(b"!\xfe\x01a\0"),
    "GIF comment in small blocks": lambda: _in_gif(b"\x01a", b"!\xfe", b"\0"),
    "GIF junk": lambda: _in_gif(b"x"),
    "BMP runs": _run_length_bmp,
}


@pytest.mark.parametrize("name", BOMBS)
def test_file_that_would_take_long_to_read_is_refused_at_once(name: str) -> None:
    data = BOMBS[name]()
    started = time.process_time()
    with pytest.raises(CorruptImage, match="parts"):
        DECODER.decode(data)
    # Unrefused, the least of them takes half a second and some take minutes.
    assert time.process_time() - started < 0.4


@pytest.mark.parametrize(
    "data",
    [
        encoded(photograph(300, 200), "JPEG", progressive=True, quality=95),
        encoded(photograph(300, 200), "JPEG", restart_marker_rows=1, quality=95),
        encoded(RGB, "JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 2000, icc_profile=b"\xff\xda" * 200_000),
        JPEG + b"\xff\xda" * 2000,  # as phones append a film
        JPEG[:2] + b"\xff" * 500 + JPEG[2:],
        encoded(RGB, "PNG", icc_profile=bytes(range(256)) * 100),
        encoded(RGB, "GIF", comment=b"c" * 300_000),
        encoded(Image.new("P", (200, 200)), "BMP"),
        encoded(Image.new("RGB", (1300, 1100)), "BMP"),  # large, but not run-length encoded
        encoded(RGB, "WEBP"),
        encoded(RGB, "TIFF"),
    ],
    ids=lambda data: repr(data[:6]),
)
def test_file_as_programs_write_it_is_read(data: bytes) -> None:
    assert not has_too_many_parts(data)
    DECODER.decode(data)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n", b"GIF89a", b"GIF89aaaaa\xff", b"BM", b"text"])
def test_fragment_has_not_too_many_parts(data: bytes) -> None:
    assert not has_too_many_parts(data)
