from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from artifact.colour_profiles import (
    BT2020_CHROMATICITIES,
    P3_CHROMATICITIES,
    SRGB_CHROMATICITIES,
    Chromaticities,
    matrix_profile,
)
from tests.images.arithmetic import ADOBE_RGB, levels_of_gamma


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def test_profile_says_what_it_was_made_of() -> None:
    profile = _opened(matrix_profile(P3_CHROMATICITIES, 2.2)).profile
    assert (profile.version, profile.xcolor_space, profile.device_class) == (2.4, "RGB ", "mntr")
    assert profile.is_matrix_shaper
    assert profile.media_white_point is not None
    assert profile.media_white_point[0] == pytest.approx((0.9642, 1.0, 0.8249), abs=1e-4)


@pytest.mark.parametrize("chromaticities", [SRGB_CHROMATICITIES, ADOBE_RGB, BT2020_CHROMATICITIES])
@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_colours_are_those_of_the_formulas(
    chromaticities: Chromaticities, gamma: float, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
    target = ImageCms.createProfile("sRGB")
    source = _opened(matrix_profile(chromaticities, gamma))
    image = ImageCms.profileToProfile(Image.fromarray(pixels), source, target, outputMode="RGB")
    assert image is not None
    expected = levels_of_gamma(pixels / 255, round(gamma * 256) / 256, chromaticities)
    assert np.abs(np.asarray(image) - expected).max() <= 2


@pytest.mark.parametrize(
    ("chromaticities", "gamma"),
    [
        ((0.0,) * 8, 1.0),
        ((0.3,) * 8, 1.0),
        ((float("nan"),) * 8, 1.0),
        (SRGB_CHROMATICITIES, 1e9),
        (SRGB_CHROMATICITIES, -1.0),
    ],
)
def test_impossible_display_is_refused(chromaticities: Chromaticities, gamma: float) -> None:
    with pytest.raises(ValueError, match="there are no colours"):
        matrix_profile(chromaticities, gamma)
