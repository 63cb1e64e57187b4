"""Images of every mode and orientation, decoded to the pixels that a viewer would show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import ExifTags, Image

from artifact.preprocessing import UInt8Array
from service.images.decoding import CorruptImage
from tests.image_files import encoded
from tests.service.decoding import COLOURS, DECODER, SIDE, seen_pixels


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_format_is_decoded_to_its_pixels(format_: str) -> None:
    parameters = {"lossless": True} if format_ == "WEBP" else {}
    assert np.array_equal(seen_pixels(encoded(COLOURS, format_, **parameters)), COLOURS)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda upright: upright),
        (2, np.fliplr),
        (3, lambda upright: np.rot90(upright, 2)),
        (4, np.flipud),
        (5, lambda upright: upright.transpose(1, 0, 2)),
        (6, lambda upright: np.rot90(upright, 1)),
        (7, lambda upright: np.rot90(upright, 2).transpose(1, 0, 2)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(format_: str, orientation: int, undo: Callable[[UInt8Array], UInt8Array]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo(COLOURS))
    assert np.array_equal(seen_pixels(encoded(stored, format_, exif=exif)), COLOURS)


def test_greyscale_is_the_same_in_every_channel() -> None:
    grey = COLOURS[..., 0]
    assert np.array_equal(seen_pixels(encoded(grey)), np.stack([grey] * 3, axis=-1))


def test_black_and_white_is_decoded() -> None:
    stored = Image.fromarray(COLOURS[..., 0] > 127)
    assert stored.mode == "1"
    expected = np.where(COLOURS[..., :1] > 127, 255, 0).repeat(3, axis=-1)
    assert np.array_equal(seen_pixels(encoded(stored)), expected)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_rather_than_clipped(format_: str) -> None:
    deep = np.array([[0, 257, 128 * 257, 65535]] * SIDE, np.uint16)
    expected = np.array([[0, 1, 128, 255]] * SIDE, np.uint8)
    assert np.array_equal(seen_pixels(encoded(Image.fromarray(deep), format_)), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate"])
@pytest.mark.parametrize("orientation", [1, 3])
def test_sixteen_bits_of_which_0_is_white_are_no_negative(compression: str | None, orientation: int) -> None:
    deep = Image.fromarray(np.array([[0, 257, 128 * 257, 65535]] * SIDE, np.uint16))
    expected = np.array([[255, 254, 127, 0][:: 1 if orientation == 1 else -1]] * SIDE, np.uint8)
    tags = {ExifTags.Base.PhotometricInterpretation: 0, ExifTags.Base.Orientation: orientation}
    seen = seen_pixels(encoded(deep, "TIFF", tiffinfo=tags, compression=compression))
    assert np.array_equal(seen, np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_floats_that_are_no_numbers_are_damage(value: float) -> None:
    pixels = np.full((SIDE, SIDE), 0.5, np.float32)
    assert seen_pixels(encoded(pixels, "TIFF")).max() == 128
    pixels[0, 0] = value
    with pytest.raises(CorruptImage):
        DECODER.decode(encoded(pixels, "TIFF"))


def test_palette_is_looked_up() -> None:
    stored = Image.fromarray(COLOURS).quantize(16, dither=Image.Dither.NONE)
    assert stored.mode == "P"
    assert np.array_equal(seen_pixels(encoded(stored)), np.asarray(stored.convert("RGB")))
    assert np.array_equal(seen_pixels(encoded(stored, "GIF")), np.asarray(stored.convert("RGB")))


def test_transparency_is_laid_on_white() -> None:
    alpha = np.array([[0, 0, 255, 255]] * SIDE, np.uint8)
    rgba = np.dstack([COLOURS, alpha])
    expected = COLOURS.copy()
    expected[:, :2] = 255
    assert np.array_equal(seen_pixels(encoded(rgba)), expected)
    half = np.dstack([np.zeros_like(COLOURS), np.full((SIDE, SIDE), 128, np.uint8)])
    assert np.abs(seen_pixels(encoded(half)).astype(int) - 127).max() <= 1


def test_transparent_colour_of_a_palette_and_of_plain_colours_is_laid_on_white() -> None:
    two = Image.fromarray(np.array([[0, 1, 0, 1]] * SIDE, np.uint8), "P")
    two.putpalette([10, 20, 30, 200, 100, 50])
    expected = np.array([[[255, 255, 255], [200, 100, 50]] * 2] * SIDE, np.uint8)
    assert np.array_equal(seen_pixels(encoded(two, transparency=0)), expected)
    assert np.array_equal(seen_pixels(encoded(two.convert("RGB"), transparency=(10, 20, 30))), expected)


def test_cmyk_is_converted() -> None:
    red, white, black = (0, 255, 255, 0), (0, 0, 0, 0), (0, 0, 0, 255)
    stored = Image.new("CMYK", (12, 4))
    for column, ink in enumerate((red, white, black)):
        stored.paste(ink, (4 * column, 0, 4 * column + 4, 4))
    for column, colour in enumerate(((1, 0, 0), (1, 1, 1), (0, 0, 0))):
        square = stored.crop((4 * column, 0, 4 * column + 4, 4))
        for format_ in ("JPEG", "TIFF"):
            seen = DECODER.decode(encoded(square, format_)).mean(axis=(1, 2))
            assert seen == pytest.approx(colour, abs=0.02), format_


def test_first_frame_of_an_animation_counts() -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    animation = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(seen_pixels(animation), COLOURS)
