from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from artifact.formats import FORMATS
from artifact.image_files import DamagedFile, UnsupportedFile, open_image
from tests.image_files import encoded, hollow_png, photograph
from tests.raw_files import raw_tiff

IMAGE = photograph(20, 12)


def test_opening_decodes_nothing() -> None:
    image = open_image(hollow_png(9000, 9000))
    assert image.size == (9000, 9000)
    with pytest.raises(OSError, match="truncated"):
        image.load()


def test_format_that_may_not_be_read_is_named() -> None:
    with pytest.raises(UnsupportedFile, match="this is a TIFF"):
        open_image(encoded(IMAGE, "TIFF"), ("JPEG", "PNG"))
    with pytest.raises(UnsupportedFile, match="this is an AVIF"):
        open_image(encoded(IMAGE, "AVIF"), ("JPEG", "PNG"))


def test_formats_of_pillow_are_read_where_all_may_be() -> None:
    data = encoded(IMAGE, "PPM")
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(IMAGE))
    with pytest.raises(UnidentifiedImageError):
        open_image(data, FORMATS)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_damaged_file_with_a_signature_is_damaged_and_not_unknown(format_: str) -> None:
    data = encoded(IMAGE, format_)
    start = 12 if format_ == "WEBP" else 18
    with pytest.raises((DamagedFile, OSError, ValueError)) as caught:
        open_image(data[:start] + b"\xfe" * 30).load()
    assert not isinstance(caught.value, UnidentifiedImageError)


def test_kind_that_the_decoder_refuses_is_told() -> None:
    samples = np.zeros((4, 4, 3), np.int64)
    with pytest.raises(UnsupportedFile, match="a big-endian TIFF of RGB with 3 samples of 32 bits, uncompressed"):
        open_image(raw_tiff(samples, 32, 2, ">"))


def test_absurd_number_of_pixels_is_an_error_of_its_own() -> None:
    with pytest.raises(Image.DecompressionBombError):
        open_image(hollow_png(50_000, 50_000))


def test_sound_file_keeps_its_pixels() -> None:
    data = encoded(IMAGE, "PNG")
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(Image.open(io.BytesIO(data))))
