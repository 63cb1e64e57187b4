from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from artifact.formats import plugins
from artifact.image_files import open_image
from artifact.preprocessing import Preprocessing
from tests.image_files import encoded, photograph

PREPROCESSING = Preprocessing(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
UNCHANGED = Preprocessing(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1))


def _gradient(width: int, height: int) -> Image.Image:
    """Red rises from left to right, green from top to bottom."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


# The geometry.


def test_input_is_normalised_channels_first() -> None:
    network_input = PREPROCESSING.normalise(PREPROCESSING.fit(_gradient(500, 375)))
    assert network_input.shape == (3, 224, 224)
    assert network_input.dtype == np.float32
    assert network_input.flags.c_contiguous


def test_shorter_side_is_resized_and_the_centre_is_cropped() -> None:
    image = _gradient(600, 400)
    resized = image.resize((384, 256), Image.Resampling.BILINEAR)
    assert np.array_equal(PREPROCESSING.fit(image), np.asarray(resized.crop((80, 16, 304, 240))))


def test_small_image_is_enlarged() -> None:
    image = _gradient(30, 20)
    resized = image.resize((384, 256), Image.Resampling.BILINEAR)
    assert np.array_equal(PREPROCESSING.fit(image), np.asarray(resized.crop((80, 16, 304, 240))))


def test_image_of_the_right_size_keeps_its_pixels(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(UNCHANGED.fit(Image.fromarray(pixels)), pixels)


def test_interpolation_is_the_one_configured(rng: np.random.Generator) -> None:
    image = Image.fromarray(rng.integers(0, 256, (300, 300, 3), np.uint8))
    bicubic = PREPROCESSING.model_copy(update={"interpolation": "bicubic"})
    expected = image.resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
    assert np.array_equal(bicubic.fit(image), np.asarray(expected))
    assert not np.array_equal(PREPROCESSING.fit(image), np.asarray(expected))


@pytest.mark.parametrize("size", [(1000, 500), (500, 1000), (1600, 200), (200, 1600), (301, 97)])
def test_long_image_is_fitted_as_if_all_of_it_were_resized(size: tuple[int, int]) -> None:
    image = _gradient(*size)
    scale = 256 / min(size)
    width, height = (round(side * scale) for side in size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    expected = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 224, top + 224))
    difference = np.abs(PREPROCESSING.fit(image).astype(int) - np.asarray(expected))
    assert difference.max() <= 2


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (30_000, 2), (7, 20_000), (1, 1), (2, 1)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (900, 100)])
def test_extreme_shape_is_fitted_without_a_large_image_in_between(
    size: tuple[int, int], resize: int, crop: int
) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    largest = []
    resized = Image.Image.resize

    def measured(image: Image.Image, size: tuple[int, int], *arguments: object, **options: object) -> Image.Image:
        largest.append(size[0] * size[1])
        return resized(image, size, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", measured)
        pixels = PREPROCESSING.model_copy(update={"resize": resize, "crop": crop}).fit(image)
    assert pixels.shape == (crop, crop, 3)
    assert (pixels == (10, 200, 30)).all()
    assert max(largest) <= (2 * crop + 1) ** 2


@pytest.mark.parametrize("resize", [224, 200, 100])
def test_resize_below_the_crop_still_gives_the_whole_crop(resize: int) -> None:
    preprocessing = PREPROCESSING.model_copy(update={"resize": resize})
    assert preprocessing.fit(_gradient(300, 500)).shape == (224, 224, 3)


# The numbers.


def test_normalising_is_the_usual_formula(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (2, 5, 5, 3), np.uint8)
    expected = (pixels / 255 - np.array(PREPROCESSING.mean)) / np.array(PREPROCESSING.std)
    normalised = PREPROCESSING.normalise(pixels)
    assert normalised.shape == (2, 3, 5, 5)
    np.testing.assert_allclose(normalised, expected.transpose(0, 3, 1, 2), atol=2e-6)


def test_normalising_a_batch_is_normalising_its_images(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (3, 5, 5, 3), np.uint8)
    one_by_one = np.stack([PREPROCESSING.normalise(image) for image in pixels])
    assert np.array_equal(PREPROCESSING.normalise(pixels), one_by_one)


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"resize": -1}, {"interpolation": "lanczos"}, {"mean": (0.5,)}])
def test_impossible_preprocessing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate(PREPROCESSING.model_dump() | wrong)


def test_large_jpeg_is_decoded_at_reduced_scale_and_looks_the_same() -> None:
    y, x = np.mgrid[0:1200, 0:1600].astype(np.float32)
    smooth = np.stack([127 + 100 * np.sin(x / 90), 127 + 100 * np.cos(y / 70), 127 + 60 * np.sin((x + y) / 50)], axis=2)
    file = io.BytesIO()
    Image.fromarray(smooth.astype(np.uint8)).save(file, "JPEG", quality=95)
    preprocessing = Preprocessing(resize=64, crop=64, mean=(0, 0, 0), std=(1, 1, 1))
    decoded_whole, reduced = Image.open(file), Image.open(file)
    decoded_whole.load()
    expected, actual = preprocessing.fit(decoded_whole).astype(int), preprocessing.fit(reduced).astype(int)
    assert decoded_whole.size == (1600, 1200)
    assert reduced.size == (800, 600)
    assert np.abs(expected - actual).mean() < 1
    assert np.abs(expected - actual).max() <= 5


def test_jpeg_not_much_larger_than_needed_is_decoded_whole() -> None:
    file = io.BytesIO()
    Image.effect_noise((300, 260), 50).convert("RGB").save(file, "JPEG")
    image = Image.open(file)
    Preprocessing(resize=64, crop=64, mean=(0, 0, 0), std=(1, 1, 1)).fit(image)
    assert image.size == (300, 260)


# Of many remainders of 8, and of all shapes; the last three are decoded at 1/8.
SIZES = [(776, 909), (449, 451), (201, 1203), (1203, 201), (455, 461), (1793, 1799), (1800, 1801), (1807, 2047)]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_reduced_decoding_moves_nothing(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(photograph(*size), "JPEG", exif=exif, quality=90)
    reduced, whole = Image.open(io.BytesIO(file)), Image.open(io.BytesIO(file))
    whole.load()
    preprocessing = Preprocessing(resize=32, crop=32, mean=(0, 0, 0), std=(1, 1, 1))
    apart = np.abs(preprocessing.fit(reduced).astype(int) - preprocessing.fit(whole))
    assert max(reduced.size) < max(whole.size) or min(size) < 448
    assert apart.mean() <= 1
    assert np.percentile(apart, 99) <= 3


def test_multi_picture_jpeg_is_decoded_at_reduced_scale_too() -> None:
    file = io.BytesIO()
    photograph(800, 600).save(file, "MPO", save_all=True, append_images=[photograph(800, 600, 1)])
    image = Image.open(file)
    assert image.format == "MPO"
    Preprocessing(resize=32, crop=32, mean=(0, 0, 0), std=(1, 1, 1)).fit(image)
    assert image.size == (400, 300)


def test_thumbnail_in_a_file_is_not_the_image() -> None:
    file = io.BytesIO(encoded(photograph(800, 600), plugins("HEIC")[0], thumbnails=[200]))
    image = open_image(file.getvalue())
    Preprocessing(resize=16, crop=16, mean=(0, 0, 0), std=(1, 1, 1)).fit(image)
    assert image.size == (800, 600)


def test_equal_preprocessings_stay_equal_when_they_were_used() -> None:
    one, other = (Preprocessing(resize=4, crop=4, mean=(0.1, 0.2, 0.3), std=(1, 1, 1)) for _ in range(2))
    for each in (one, other):
        each.normalise(np.zeros((4, 4, 3), np.uint8))
    assert one == other
    assert one != other.model_copy(update={"crop": 2})
