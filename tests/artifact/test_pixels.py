from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from artifact import pixels
from artifact.pixels import to_rgb


def _gradient(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


def _reopened(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    """The image after a trip through a file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def _colour(image: Image.Image) -> tuple[int, ...]:
    """The colour of the upper left pixel after conversion."""
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    colour = converted.getpixel((0, 0))
    assert isinstance(colour, tuple)
    return colour


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.asarray(_gradient(12, 8))
    # What a camera stores when it was held so that this orientation puts the image upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = _reopened(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(np.asarray(to_rgb(image)), upright)


def test_greyscale_becomes_three_equal_channels() -> None:
    assert _colour(_reopened(Image.new("L", (4, 4), 77), "JPEG", quality=100)) == (77, 77, 77)


def test_one_bit_image_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert np.asarray(to_rgb(_reopened(image, "PNG"))).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_becomes_rgb() -> None:
    image = _reopened(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert image.mode == "CMYK"
    red, green, blue = _colour(image)
    assert red > 250
    assert green < 5
    assert blue < 5


def test_palette_is_looked_up() -> None:
    image = _reopened(Image.new("RGB", (4, 4), (200, 10, 60)).quantize(4), "PNG")
    assert image.mode == "P"
    assert _colour(image) == (200, 10, 60)


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_transparent_palette_entry_is_laid_on_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 60, 0, 0, 255])
    image.putpixel((1, 0), 1)
    reopened = _reopened(image, "PNG", transparency=transparency)
    assert reopened.mode == "P"
    assert np.asarray(to_rgb(reopened)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "colour", "transparency"), [("RGB", (1, 2, 3), (1, 2, 3)), ("L", 9, 9), ("1", 0, 0)])
def test_transparent_colour_is_laid_on_white(mode: str, colour: object, transparency: object) -> None:
    image = _reopened(Image.new(mode, (2, 2), colour), "PNG", transparency=transparency)  # type: ignore[arg-type]
    assert image.mode == mode
    assert _colour(image) == (255, 255, 255)


@pytest.mark.parametrize(("alpha", "expected"), [(255, (200, 0, 100)), (0, (255, 255, 255)), (128, (227, 127, 177))])
def test_transparency_is_laid_on_white(alpha: int, expected: tuple[int, int, int]) -> None:
    image = _reopened(Image.new("RGBA", (4, 4), (200, 0, 100, alpha)), "PNG")
    assert np.abs(np.subtract(_colour(image), expected)).max() <= 1


@pytest.mark.parametrize(("alpha", "expected"), [(255, 40), (0, 255)])
def test_transparent_greyscale_is_laid_on_white(alpha: int, expected: int) -> None:
    image = _reopened(Image.new("LA", (4, 4), (40, alpha)), "PNG")
    assert image.mode == "LA"
    assert _colour(image) == (expected,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (256, 1), (32_896, 128), (65_278, 254), (65_535, 255)])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_greyscale_is_scaled_not_clipped(file_format: str, value: int, expected: int) -> None:
    image = _reopened(Image.fromarray(np.full((4, 4), value, np.uint16)), file_format)
    assert image.mode == "I;16"
    assert _colour(image) == (expected,) * 3


def test_16_bit_greyscale_in_a_32_bit_mode_is_scaled() -> None:
    assert _colour(Image.fromarray(np.full((4, 4), 32_896, np.int32))) == (128,) * 3
    # However dark it is: the brightest pixel says nothing about the depth.
    assert _colour(Image.fromarray(np.full((4, 4), 200, np.int32))) == (1,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0.5, 128), (1.0, 255), (200.0, 200), (-3e38, 0), (3e38, 255)])
def test_floating_point_greyscale_is_scaled(value: float, expected: int) -> None:
    assert _colour(Image.fromarray(np.full((4, 4), value, np.float32))) == (expected,) * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_floating_point_greyscale_that_is_not_finite_is_an_error(value: float) -> None:
    pixels = np.full((4, 4), 0.5, np.float32)
    pixels[3, 3] = value
    with pytest.raises(ValueError, match="no number, or infinite"):
        to_rgb(Image.fromarray(pixels))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
)
@pytest.mark.parametrize("largest", [1, 255])
def test_large_image_is_converted_in_strips_as_it_would_be_whole(
    mode: str, largest: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    image = _image_of_mode(mode, largest, rng)
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr(pixels, "_STRIP_PIXELS", 200)
    assert len(list(pixels._strips(image))) == 5
    assert np.array_equal(np.asarray(to_rgb(image)), whole)
    assert len(np.unique(whole)) > 1


def _image_of_mode(mode: str, largest: int, rng: np.random.Generator) -> Image.Image:
    """Noise of 50 x 19 pixels; of floats only the last row reaches the largest value."""
    if mode == "F":
        values = rng.random((19, 50), np.float32)
        values[-1, -1] = largest
        return Image.fromarray(values)
    if mode.startswith("I"):
        return Image.fromarray(rng.integers(0, 65536, (19, 50)).astype(np.int32 if mode == "I" else np.uint16))
    bands = len(Image.new(mode, (1, 1)).getbands())
    image = Image.frombytes(mode, (50, 19), rng.bytes(50 * 19 * bands if mode != "1" else 7 * 19))
    if mode == "P":
        image.putpalette(rng.bytes(768))
        image.info["transparency"] = 3
    return image
