from __future__ import annotations

import struct

import numpy as np
import pytest

from artifact.colour_profiles import SRGB_CHROMATICITIES, matrix_profile
from artifact.image_files import UnsupportedFile, open_image
from artifact.pixels import to_rgb
from tests.image_files import chunk, encoded, photograph
from tests.images.arithmetic import levels_of_p3
from tests.raw_files import gamma_chunk, profile_chunk, raw_png

PIXELS = np.asarray(photograph(12, 8))
P3, BT709 = 12, 1
SRGB_CURVE, PQ, HLG = 13, 16, 18


def _labelled_png(primaries: int, transfer: int, *chunks: bytes) -> bytes:
    return raw_png(PIXELS.astype(np.int64), 8, 2, chunk(b"cICP", bytes([primaries, transfer, 0, 1])), *chunks)


def _labelled_avif(primaries: int, transfer: int) -> bytes:
    data = encoded(photograph(64, 64), "AVIF", quality=95)
    start = data.index(b"colrnclx") + 8
    return data[:start] + struct.pack(">HH", primaries, transfer) + data[start + 4 :]


def test_png_of_a_wider_gamut_is_converted() -> None:
    seen = np.asarray(to_rgb(open_image(_labelled_png(P3, SRGB_CURVE))))
    assert np.abs(seen - levels_of_p3(PIXELS / 255)).max() <= 2
    assert np.array_equal(np.asarray(to_rgb(open_image(_labelled_png(BT709, SRGB_CURVE)))), PIXELS)


def test_avif_of_a_wider_gamut_is_converted() -> None:
    plain = np.asarray(to_rgb(open_image(_labelled_avif(BT709, SRGB_CURVE))))
    seen = np.asarray(to_rgb(open_image(_labelled_avif(P3, SRGB_CURVE))))
    assert np.abs(seen - levels_of_p3(plain / 255)).max() <= 2


def test_code_points_of_a_png_come_before_what_is_there_for_others() -> None:
    expected = np.asarray(to_rgb(open_image(_labelled_png(P3, SRGB_CURVE))))
    others = [chunk(b"sRGB", b"\0"), gamma_chunk(1.0), profile_chunk(matrix_profile(SRGB_CHROMATICITIES, 1.0))]
    for other in others:
        assert np.array_equal(np.asarray(to_rgb(open_image(_labelled_png(P3, SRGB_CURVE, other)))), expected)


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_brightness_that_srgb_has_not_is_refused(transfer: int, name: str) -> None:
    with pytest.raises(UnsupportedFile, match=rf"this is a PNG in HDR \({name}\)"):
        open_image(_labelled_png(P3, transfer))
    with pytest.raises(UnsupportedFile, match=rf"this is an AVIF in HDR \({name}\)"):
        open_image(_labelled_avif(P3, transfer))


def test_profile_in_a_bmp_is_heeded() -> None:
    profile = matrix_profile(SRGB_CHROMATICITIES, 1.0)
    plain = encoded(photograph(12, 8), "BMP")
    body = plain[54:]
    start, end = 14 + 124, 14 + 124 + len(body)
    header = bytearray(plain[14:54].ljust(124, b"\0"))
    struct.pack_into("<I", header, 0, 124)
    header[56:60] = b"DEBM"  # "MBED" of a number
    struct.pack_into("<II", header, 112, end - 14, len(profile))
    file = b"BM" + struct.pack("<IHHI", end + len(profile), 0, 0, start) + bytes(header) + body + profile
    seen = np.asarray(to_rgb(open_image(file)))
    expected = np.asarray(to_rgb(open_image(encoded(PIXELS, "PNG", icc_profile=profile))))
    assert np.array_equal(seen, expected)
    assert seen.mean() > PIXELS.mean() + 20
