from __future__ import annotations

import numpy as np
import pytest

from artifact.preprocessing import UInt8Array
from models.report.perturbations import PERTURBATIONS

BY_NAME = {perturbation.name: perturbation for perturbation in PERTURBATIONS}


@pytest.fixture
def pixels(rng: np.random.Generator) -> UInt8Array:
    """Three images that are not square, so that a turned one shows."""
    return rng.integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", BY_NAME)
def test_change_gives_another_image_of_the_same_form(name: str, pixels: UInt8Array) -> None:
    changed = BY_NAME[name].apply(pixels, np.arange(3))
    assert changed.shape == pixels.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, pixels)


@pytest.mark.parametrize("name", BY_NAME)
def test_change_of_an_image_does_not_depend_on_its_batch(name: str, pixels: UInt8Array) -> None:
    together = BY_NAME[name].apply(pixels, np.array([5, 6, 7]))
    alone = BY_NAME[name].apply(pixels[1:2], np.array([6]))
    assert np.array_equal(together[1:2], alone)


def test_mirrored_image_is_read_from_right_to_left(pixels: UInt8Array) -> None:
    assert np.array_equal(BY_NAME["mirrored"].apply(pixels, np.arange(3)), pixels[:, :, ::-1])


def test_moved_image_repeats_its_edge(pixels: UInt8Array) -> None:
    moved = BY_NAME["moved by one pixel"].apply(pixels, np.arange(3))
    assert np.array_equal(moved[:, :, 1:], pixels[:, :, :-1])
    assert np.array_equal(moved[:, :, 0], pixels[:, :, 0])


def test_brightness_is_scaled_and_clipped() -> None:
    levels = np.array([0, 100, 250], np.uint8).reshape(1, 1, 3, 1).repeat(3, axis=3)
    assert BY_NAME["10% brighter"].apply(levels, np.arange(1))[0, 0, :, 0].tolist() == [0, 110, 255]
    assert BY_NAME["10% darker"].apply(levels, np.arange(1))[0, 0, :, 0].tolist() == [0, 90, 225]


@pytest.mark.parametrize("deviation", [4, 8])
def test_noise_has_the_deviation_it_is_named_after(deviation: int) -> None:
    grey = np.full((20, 16, 16, 3), 128, np.uint8)
    noise = BY_NAME[f"noise, {deviation} of 255"].apply(grey, np.arange(20)) - 128.0
    assert noise.std() == pytest.approx(deviation, rel=0.05)
    assert abs(noise.mean()) < 0.3


def test_lower_quality_of_a_jpeg_changes_more(pixels: UInt8Array) -> None:
    high, low = (
        np.abs(BY_NAME[f"JPEG, quality {quality}"].apply(pixels, np.arange(3)) - 1.0 * pixels).mean()
        for quality in (90, 50)
    )
    assert 0 < high < low
