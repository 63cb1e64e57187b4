"""The image formats that are read, and how a file of each begins: the one list of them.

Pillow reads dozens more, each with a decoder that could be attacked; training may read them, serving does not.
"""

from __future__ import annotations

import re
import struct

from PIL import AvifImagePlugin

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIC": (".heic", ".heif"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
"""How the names of such files end."""

FORMATS = tuple(SUFFIXES)
"""All that can be read: a multi-picture JPEG is a JPEG, of which the first picture counts."""

try:
    import pillow_heif
except ImportError:  # an extra of its own
    HAS_HEIC = False
else:
    HAS_HEIC = True
    # A worker has one core. A thumbnail in the file need not be of the same pixels.
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

READABLE_FORMATS = tuple(name for name in FORMATS if name != "HEIC" or HAS_HEIC)
"""What can be read with the packages that are installed."""

USUAL_FORMATS = tuple(name for name in READABLE_FORMATS if name != "TIFF")
"""What photographs and screenshots come as."""

_DIB_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # the sizes there are
_SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM.{12}(?:%s)" % b"|".join(re.escape(struct.pack("<I", n)) for n in _DIB_HEADERS), re.DOTALL),
    "TIFF": re.compile(rb"II[*+]\0|MM\0[*+]|MM\*\0|II\0\*"),
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def format_of(data: bytes) -> str | None:
    """The name of the format whose signature the bytes begin with; None if there is none in `FORMATS`."""
    for name, signature in _SIGNATURES.items():
        if signature.match(data):
            return name
    brands = _brands(data)
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None


def _brands(data: bytes) -> set[bytes]:
    """The brands that a file of ISO/IEC 14496-12 (section 4.3) says it conforms to."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 1024)
    return {data[8:12], *(data[start : start + 4] for start in range(16, end - 3, 4))}


def plugins(name: str) -> list[str]:
    """What Pillow calls the readers of a format."""
    return {"HEIC": ["HEIF"], "BMP": ["BMP with masks", "BMP"]}.get(name, [name])


def unsupported_kind(name: str, data: bytes) -> str | None:
    """What a file is that the decoder has refused, such as "a JPEG of 12 bits a sample"; None if it is damaged."""
    if name == "JPEG":
        return _unsupported_jpeg(data)
    return _unsupported_bmp(data) if name == "BMP" else None


_SEGMENT = re.compile(rb"\xff+([\xc0-\xfe])(..)", re.DOTALL)
_FRAMES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical", 0xCB: "lossless"}


def _unsupported_jpeg(data: bytes) -> str | None:
    """Told from the frame header (ITU-T T.81, section B.2.2), the segments before it being skipped."""
    start = 2
    while found := _SEGMENT.match(data, start):
        marker, length = found[1][0], int.from_bytes(found[2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = data[found.end() : found.end() + 6]
            if len(frame) < 6:
                return None
            if marker in _FRAMES or marker > 0xCB:
                return f"a {_FRAMES.get(marker, 'hierarchical')} JPEG"
            if frame[0] != 8:
                return f"a JPEG of {frame[0]} bits a sample" if frame[0] in (12, 16) else None
            return f"a JPEG of {frame[5]} components" if frame[5] not in (0, 1, 3, 4) else None
        start = found.end() + length - 2
    return None


def _unsupported_bmp(data: bytes) -> str | None:
    """Told from the header that most have, of 40 bytes and more."""
    if len(data) < 54 or data[14:18] == struct.pack("<I", 12):
        return None
    bits, compression = struct.unpack_from("<HI", data, 28)
    if bits not in (1, 4, 8, 16, 24, 32):
        return f"a BMP of {bits} bits a pixel" if bits in (0, 2, 64) else None
    return f"a BMP of compression {compression}" if compression in (4, 5, 11, 12, 13) else None
