"""Image files of every kind that can be told in numbers, each with the pixels that a viewer shows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from artifact.colour_profiles import P3_CHROMATICITIES, SRGB_CHROMATICITIES, matrix_profile
from tests.image_files import chunk, encoded
from tests.images import arithmetic
from tests.images.arithmetic import ADOBE_RGB, Values, levels_of_gamma, levels_of_p3, on_white
from tests.raw_files import chromaticity_chunk, gamma_chunk, profile_chunk, raw_bmp, raw_png, raw_tiff

SIDE = 32
# All over the gamut: red from left to right, green from top to bottom, blue in the third direction.
_ROWS, _COLUMNS = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
EIGHT_BITS = np.rint(np.stack([_COLUMNS, _ROWS, (_COLUMNS + 2 * _ROWS) % 1.0], axis=-1) * 255).astype(np.uint8)
COLOURS: Values = EIGHT_BITS / 255
GREY: Values = (_COLUMNS + _ROWS)[..., None] / 2
ALPHA: Values = np.rint(_ROWS * 255) / 255


@dataclass(frozen=True)
class Generated:
    """One file.

    Attributes:
        name: of what it is, with the suffix of its format.
        data: the file.
        expected: levels of 255 that a viewer shows, (SIDE, SIDE, 3).
        tolerance: largest difference of a value, in levels.
    """

    name: str
    data: bytes
    expected: Values
    tolerance: float = 1.01


def generated() -> Iterator[Generated]:
    """All of them."""
    for make in (
        _depths,
        _transparent,
        _masked,
        _profiled,
        _gammas,
        _grey_profiles,
        _table_profiles,
        _turned,
        _phone_formats,
    ):
        yield from make()


def _grey_levels(values: Values = GREY) -> Values:
    return np.repeat(values * 255, 3, axis=-1)


def _depths() -> Iterator[Generated]:
    for bits in (1, 2, 4, 8, 16):
        most = 2**bits - 1
        samples = np.rint(GREY * most).astype(np.int64)
        yield Generated(f"grey{bits}.png", raw_png(samples, bits, 0), _grey_levels(samples / most))
    deep = np.rint(COLOURS * 65535).astype(np.int64)
    yield Generated("rgb16.png", raw_png(deep, 16, 2), COLOURS * 255)
    for order, end in (("<", "lsb"), (">", "msb")):
        for planar in (False, True):
            name = f"rgb16-{'planar' if planar else 'contig'}-{end}.tif"
            yield Generated(name, raw_tiff(deep, 16, 2, order, planar=planar), COLOURS * 255)
            name = f"rgba16-{'planar' if planar else 'contig'}-{end}.tif"
            with_alpha = np.dstack([deep, np.rint(ALPHA * 65535).astype(np.int64)])
            file = raw_tiff(with_alpha, 16, 2, order, planar=planar, extra=2)
            yield Generated(name, file, on_white(COLOURS * 255, ALPHA), 2)
    for order, end in (("<", "lsb"), (">", "msb")):
        signed = np.rint(GREY * 65535).astype(np.int64) - 32768
        yield Generated(f"grey16-signed-{end}.tif", raw_tiff(signed, 16, 1, order, form=2), _grey_levels())
        deepest = np.rint(GREY * (2**32 - 1)).astype(np.int64) - 2**31
        yield Generated(f"grey32-signed-{end}.tif", raw_tiff(deepest, 32, 1, order, form=2), _grey_levels())
    for bits in (12, 32):
        samples = np.rint(GREY * (2**bits - 1)).astype(np.int64)
        for deflate in (False, True):
            name = f"grey{bits}-{'deflate' if deflate else 'raw'}.tif"
            yield Generated(name, raw_tiff(samples, bits, 1, deflate=deflate), _grey_levels())
    eight = np.rint(GREY * 255).astype(np.int64) - 128
    yield Generated("grey8-signed.tif", raw_tiff(eight, 8, 1, form=2), _grey_levels())
    floats = (1 - GREY).astype(np.float32).view(np.uint32).astype(np.int64)
    yield Generated("grey-float-white-is-0.tif", raw_tiff(floats, 32, 0, form=3), _grey_levels())


def _transparent() -> Iterator[Generated]:
    levels = np.round(GREY * 255)
    for extra, kind in ((1, "associated"), (2, "unassociated")):
        stored = levels * ALPHA[..., None] if extra == 1 else levels
        samples = np.rint(np.dstack([stored, ALPHA * 255])).astype(np.int64)
        shown = on_white(_grey_levels(), ALPHA)
        yield Generated(f"grey-{kind}-alpha.tif", raw_tiff(samples, 8, 1, extra=extra), shown, 2)
    for bits in (2, 4, 8, 16):
        samples = np.rint(GREY * (2**bits - 1)).astype(np.int64)
        hidden = int(samples[5, 9, 0])
        shown = _grey_levels(samples / (2**bits - 1))
        shown[samples[..., 0] == hidden] = 255
        file = raw_png(samples, bits, 0, chunk(b"tRNS", struct.pack(">H", hidden)))
        yield Generated(f"grey{bits}-trns.png", file, shown)
    deep = np.rint(COLOURS * 255).astype(np.int64) * 257
    hidden_colour = deep[5, 9].tolist()
    shown = COLOURS * 255
    shown[5, 9] = 255
    file = raw_png(deep, 16, 2, chunk(b"tRNS", struct.pack(">3H", *hidden_colour)))
    yield Generated("rgb16-trns.png", file, shown)


def _masked() -> Iterator[Generated]:
    layouts = {
        "bf16-1555": ((10, 5, 0, 15), (5, 5, 5, 1)),
        "bf16-4444": ((8, 4, 0, 12), (4, 4, 4, 4)),
        "bf16-0444": ((8, 4, 0, 0), (4, 4, 4, 0)),
        "bf16-565-swapped": ((0, 5, 11, 0), (5, 6, 5, 0)),
        "bf32-10-bits": ((20, 10, 0, 0), (10, 10, 10, 0)),
        "bf32-unequal": ((21, 10, 1, 0), (11, 11, 9, 0)),
        "bf32-8-alpha": ((0, 8, 16, 24), (8, 8, 8, 8)),
    }
    for name, (shifts, widths) in layouts.items():
        kind = np.uint16 if name.startswith("bf16") else np.uint32
        packed = np.zeros((SIDE, SIDE), np.int64)
        shown = np.dstack([COLOURS, ALPHA])
        for channel, (shift, width) in enumerate(zip(shifts, widths, strict=True)):
            most = 2**width - 1
            samples = np.rint(shown[..., channel] * most).astype(np.int64)
            packed |= samples << shift
            shown[..., channel] = samples / most if most else 1
        masks = [(2**width - 1) << shift for shift, width in zip(shifts, widths, strict=True)]
        expected = on_white(shown[..., :3] * 255, shown[..., 3])
        for bottom_up in (True, False):
            file = raw_bmp(packed.astype(kind), masks, bottom_up=bottom_up)
            yield Generated(f"{name}-{'up' if bottom_up else 'down'}.bmp", file, expected, 1.5)


def _profiled() -> Iterator[Generated]:
    profiles = {
        "adobe-rgb": (matrix_profile(ADOBE_RGB, 2.2), levels_of_gamma(COLOURS, 2.19921875, ADOBE_RGB)),
        "gamma-1.8": (matrix_profile(SRGB_CHROMATICITIES, 1.8), levels_of_gamma(COLOURS, 1.8)),
        "display-p3": (matrix_profile(P3_CHROMATICITIES), levels_of_p3(COLOURS)),
        "srgb": (matrix_profile(SRGB_CHROMATICITIES), COLOURS * 255),
        "damaged": (b"no profile at all" * 20, COLOURS * 255),
    }
    for name, (profile, expected) in profiles.items():
        for suffix, format_ in (("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP")):
            parameters = {"lossless": True} if format_ == "WEBP" else {}
            file = encoded(EIGHT_BITS, format_, icc_profile=profile, **parameters)
            yield Generated(f"{name}.{suffix}", file, expected, 2)
        half = Image.fromarray(np.dstack([EIGHT_BITS, np.rint(ALPHA * 255).astype(np.uint8)]))
        file = encoded(half, "PNG", icc_profile=profile)
        yield Generated(f"{name}-alpha.png", file, on_white(expected, ALPHA), 2)


def _gammas() -> Iterator[Generated]:
    eight = EIGHT_BITS.astype(np.int64)
    for gamma in (1.0, 0.55556, 0.3):
        file = raw_png(eight, 8, 2, gamma_chunk(gamma))
        yield Generated(f"gamma{gamma}.png", file, levels_of_gamma(COLOURS, 1 / gamma), 2)
    wide = chromaticity_chunk(ADOBE_RGB)
    file = raw_png(eight, 8, 2, gamma_chunk(1.0), wide)
    yield Generated("gamma-and-primaries.png", file, levels_of_gamma(COLOURS, 1, ADOBE_RGB), 2)
    for name, chunks in {
        "usual-gamma": [gamma_chunk(0.45455)],
        "usual-gamma-and-primaries": [gamma_chunk(0.45455), chromaticity_chunk(arithmetic.SRGB)],
        "primaries-alone": [wide],
        "srgb-before-gamma": [chunk(b"sRGB", b"\0"), gamma_chunk(1.0)],
        "profile-before-gamma": [profile_chunk(matrix_profile(SRGB_CHROMATICITIES)), gamma_chunk(1.0)],
        "no-such-gamma": [gamma_chunk(0)],
        "no-such-primaries": [gamma_chunk(1 / 2.2), chromaticity_chunk([0.1] * 8)],
    }.items():
        yield Generated(f"{name}.png", raw_png(eight, 8, 2, *chunks), COLOURS * 255)


def _grey_profiles() -> Iterator[Generated]:
    grey = Image.fromarray(np.rint(GREY[..., 0] * 255).astype(np.uint8))
    curve = struct.pack(">4s4xIH2x", b"curv", 1, round(1.8 * 256))
    profile = _grey_profile(curve)
    expected = levels_of_gamma(np.repeat(GREY, 3, axis=-1), 1.80078125)
    yield Generated("grey-gamma-1.8.png", encoded(grey, "PNG", icc_profile=profile), expected, 2)
    yield Generated("grey-gamma-1.8.tif", encoded(grey, "TIFF", icc_profile=profile), expected, 2)
    colours = encoded(EIGHT_BITS, "PNG", icc_profile=profile)
    yield Generated("grey-profile-of-colours.png", colours, COLOURS * 255)
    of_colours = matrix_profile(SRGB_CHROMATICITIES, 1.8)
    yield Generated("colour-profile-of-grey.tif", encoded(grey, "TIFF", icc_profile=of_colours), expected, 2)
    yield Generated("colour-profile-of-grey.png", encoded(grey, "PNG", icc_profile=of_colours), _grey_levels())


def _grey_profile(curve: bytes) -> bytes:
    """The profile of a grey display (ICC.1:2001-04, section 6.3.1.1)."""
    white = struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    table = struct.pack(">I4sII4sII", 2, b"kTRC", 156, len(curve), b"wtpt", 156 + len(curve), len(white))
    size = 128 + len(table) + len(curve) + len(white)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + (white[8:] + bytes(48)) + table + curve + white


def _table_profiles() -> Iterator[Generated]:
    """Profiles that are tables, as those of inks are, and that of JPEGs in XYB."""
    inks = np.zeros((SIDE, SIDE, 4), np.uint8)
    inks[..., 3] = np.rint(GREY[..., 0] * 255)
    inks[..., 0] = EIGHT_BITS[..., 0]  # which the profile takes for water
    printed = Image.frombytes("CMYK", (SIDE, SIDE), inks.tobytes())
    black_alone = _table_profile(b"CMYK", [100 * (1 - corner % 2) for corner in range(16)])
    shown = _of_lightness(1 - inks[..., 3:] / 255)
    yield Generated("inks.tif", encoded(printed, "TIFF", icc_profile=black_alone), shown, 2)
    flat = Image.new("CMYK", (SIDE, SIDE), (90, 10, 20, 128))
    shown = _of_lightness(np.full((SIDE, SIDE, 1), 1 - 128 / 255))
    yield Generated("inks.jpg", encoded(flat, "JPEG", quality=95, icc_profile=black_alone), shown, 3)
    red_alone = _table_profile(b"RGB ", [100 * (corner // 4) for corner in range(8)])
    file = encoded(EIGHT_BITS, "PNG", icc_profile=red_alone)
    yield Generated("table-of-colours.png", file, _of_lightness(COLOURS[..., :1]), 2)
    without_profile = np.rint(255 * (1 - inks[..., :3] / 255.0) * (1 - inks[..., 3:] / 255.0))
    yield Generated("inks-without-profile.tif", encoded(printed, "TIFF"), without_profile)
    of_colours = encoded(printed, "TIFF", icc_profile=red_alone)
    yield Generated("inks-with-a-profile-of-colours.tif", of_colours, without_profile)


def _of_lightness(lightness: Values) -> Values:
    """sRGB levels of grey with this L* of CIE 1976, (..., 1) in [0, 1]."""
    stimulus = np.where(lightness > 0.08, ((lightness * 100 + 16) / 116) ** 3, lightness * 100 / 903.3)
    return 255 * arithmetic.encode(np.repeat(stimulus, 3, axis=-1))


def _table_profile(space: bytes, lightness: list[int]) -> bytes:
    """A profile of greys by a table of two points for each channel (lut16Type: ICC.1:2001-04, section 6.5.7).

    Args:
        space: of the samples.
        lightness: L* of every corner, the last channel varying first.
    """
    channels = len(space.strip())
    unity = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    straight = struct.pack(">2H", 0, 65535)
    corners = b"".join(struct.pack(">3H", round(value * 652.8), 0x8000, 0x8000) for value in lightness)
    table = b"mft2" + bytes(4) + bytes([channels, 3, 2, 0]) + unity + struct.pack(">2H", 2, 2)
    table += straight * channels + corners + straight * 3
    white = struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    tags = struct.pack(">I4sII4sII", 2, b"A2B0", 156, len(table), b"wtpt", 156 + len(table), len(white))
    size = 128 + len(tags) + len(table) + len(white)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"prtr", space, b"Lab ", b"acsp")
    return head.ljust(68, b"\0") + (white[8:] + bytes(48)) + tags + table + white


def _turned() -> Iterator[Generated]:
    stored = {
        1: EIGHT_BITS,
        2: np.fliplr(EIGHT_BITS),
        3: np.rot90(EIGHT_BITS, 2),
        4: np.flipud(EIGHT_BITS),
        5: EIGHT_BITS.transpose(1, 0, 2),
        6: np.rot90(EIGHT_BITS, 1),
        7: np.rot90(EIGHT_BITS, 2).transpose(1, 0, 2),
        8: np.rot90(EIGHT_BITS, -1),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix, format_ in (("png", "PNG"), ("tif", "TIFF"), ("webp", "WEBP")):
            parameters = {"lossless": True} if format_ == "WEBP" else {}
            file = encoded(np.ascontiguousarray(pixels), format_, exif=exif.tobytes(), **parameters)
            yield Generated(f"orientation{orientation}.{suffix}", file, COLOURS * 255)
    words = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="r" tiff:Orientation="6"></r:RDF></x:xmpmeta>'
    turned = raw_tiff(EIGHT_BITS.astype(np.int64), 8, 2, tags=[(700, 1, words)])
    yield Generated("orientation-in-xmp.tif", turned, COLOURS * 255)
    file = encoded(EIGHT_BITS, "WEBP", lossless=True, xmp=words)
    yield Generated("orientation-in-xmp.webp", file, COLOURS * 255)
    told = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + words)
    yield Generated("orientation-in-xmp.png", raw_png(EIGHT_BITS.astype(np.int64), 8, 2, told), COLOURS * 255)


def _phone_formats() -> Iterator[Generated]:
    smooth = np.rint(_grey_levels(0.2 + 0.6 * GREY)).astype(np.uint8)
    profile = matrix_profile(SRGB_CHROMATICITIES, 1.8)
    for suffix, format_ in (("jpg", "JPEG"), ("avif", "AVIF"), ("heic", "HEIF")):
        yield Generated(f"smooth.{suffix}", encoded(smooth, format_, quality=95), smooth.astype(float), 6)
        shown = levels_of_gamma(smooth / 255, 1.8)
        file = encoded(smooth, format_, quality=95, icc_profile=profile)
        yield Generated(f"smooth-gamma-1.8.{suffix}", file, shown, 8)
