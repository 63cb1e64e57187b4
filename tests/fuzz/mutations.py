"""Sound files, and what can be done to them."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from hypothesis import strategies as st
from PIL import Image

import artifact.formats  # noqa: F401  # with it HEIC can be written
from artifact.colour_profiles import SRGB_CHROMATICITIES, matrix_profile
from tests.image_files import encoded, photograph

_PROFILE = matrix_profile(SRGB_CHROMATICITIES, 1.8)
_FORMATS = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("L", "RGB", "RGBA"),
    "HEIF": ("L", "RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I", "I;16", "F"),
}
_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"comment": b"words"}, {"icc_profile": _PROFILE}],
    "PNG": [{}, {"optimize": True}, {"icc_profile": _PROFILE}, {"icc_profile": bytes(300)}],
    "WEBP": [{}, {"lossless": True}],
    "AVIF": [{}],
    "HEIF": [{}],
    "GIF": [{}, {"interlace": 0}, {"comment": b"words"}, {"transparency": 1}],
    "BMP": [{}],
    "TIFF": [{}, *({"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits"))],
}
# What fields of sizes, offsets and counts lie with.
_LIES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


@cache
def sound_files() -> tuple[bytes, ...]:
    """An image in every format and mode, with every option, upright and turned, and animations of three frames."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for format_, modes in _FORMATS.items():
        for mode in modes:
            image = _of_mode(mode)
            files += [encoded(image, format_, **options) for options in _OPTIONS[format_]]
            if format_ not in ("GIF", "BMP"):
                files.append(encoded(image, format_, exif=exif))
    files.append(encoded(_of_mode("P"), "PNG", transparency=0))
    frames = [photograph(19, 13, seed) for seed in range(3)]
    files += [
        encoded(frames[0], format_, save_all=True, append_images=frames[1:])
        for format_ in ("GIF", "PNG", "WEBP", "TIFF")
    ]
    return tuple(files)


def _of_mode(mode: str) -> Image.Image:
    image = photograph(19, 13)
    if mode in ("I", "I;16", "F"):
        return image.convert("L").convert("I").convert(mode)
    return image.convert("RGBA" if mode == "LA" else "RGB").convert(mode)


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """A sound file to which one to four things were done."""
    data = bytearray(draw(st.sampled_from(sound_files())))
    for _ in range(draw(st.integers(1, 4))):
        _mutate(draw, data)
    return bytes(data)


def _mutate(draw: st.DrawFn, data: bytearray) -> None:
    if not data:
        return
    at = draw(st.integers(0, len(data) - 1))
    match draw(st.sampled_from(["cut", "bit", "bytes", "lie", "copy", "drop", "splice"])):
        case "cut":
            del data[at:]
        case "bit":
            data[at] ^= 1 << draw(st.integers(0, 7))
        case "bytes":
            new = draw(st.binary(min_size=1, max_size=16))
            data[at : at + len(new)] = new
        case "lie":
            number = draw(st.sampled_from(_LIES))
            form = draw(st.sampled_from([">H", "<H", ">I", "<I"]))
            field = struct.pack(form, number & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
            data[at : at + len(field)] = field
        case "copy":  # a part again, as often as it takes to find what that costs
            part = data[at : at + draw(st.integers(1, 64))]
            data[at:at] = part * draw(st.sampled_from([1, 2, 1000]))
        case "drop":
            del data[at : at + draw(st.integers(1, 64))]
        case "splice":  # the end of another file
            other = draw(st.sampled_from(sound_files()))
            data[at:] = other[draw(st.integers(0, len(other) - 1)) :]
