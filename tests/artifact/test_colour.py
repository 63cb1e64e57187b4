from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms

from artifact import colour
from artifact.colour import conversion_to_srgb
from artifact.colour_profiles import P3_CHROMATICITIES, SRGB_CHROMATICITIES, matrix_profile
from artifact.image_files import open_image
from artifact.pixels import to_rgb
from tests.image_files import encoded, photograph

PHOTOGRAPH = photograph(24, 16)
GAMMA = matrix_profile(SRGB_CHROMATICITIES, 1.8)
LITTLECMS_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _said(image: Image.Image, **info: object) -> Image.Image:
    image = image.copy()
    image.info.update(info)
    return image


@pytest.mark.parametrize("profile", [LITTLECMS_SRGB, matrix_profile(SRGB_CHROMATICITIES)])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "JPEG"])
def test_srgb_profile_changes_not_a_bit(format_: str, profile: bytes) -> None:
    plain = open_image(encoded(PHOTOGRAPH, format_))
    told = open_image(encoded(PHOTOGRAPH, format_, icc_profile=profile))
    assert conversion_to_srgb(told) is None
    assert np.array_equal(np.asarray(to_rgb(told)), np.asarray(to_rgb(plain)))


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"nonsense",
        bytes(300),
        GAMMA[:200],
        GAMMA[:16] + b"CMYK" + GAMMA[20:],
        GAMMA[:12] + b"link" + GAMMA[16:],  # a profile between devices
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        GAMMA + bytes(5_000_000),
        GAMMA[:132] + b"D2B0" + GAMMA[136:],
    ],
    ids=["none", "text", "zeros", "cut off", "of inks", "link", "of Lab", "huge", "with programs"],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_profile_that_makes_no_sense_is_ignored(mode: str, profile: bytes) -> None:
    assert conversion_to_srgb(_said(PHOTOGRAPH.convert(mode), icc_profile=profile)) is None


def test_profile_that_makes_no_sense_leaves_the_gamma_to_be_heeded() -> None:
    assert conversion_to_srgb(_said(PHOTOGRAPH, icc_profile=b"nonsense", gamma=1.0)) is not None


@pytest.mark.parametrize(("gamma", "converts"), [(0.45455, False), (0.46, False), (0.6, True), (1.0, True), (0, False)])
def test_gamma_near_that_of_srgb_is_srgb(gamma: float, converts: bool) -> None:
    assert (conversion_to_srgb(_said(PHOTOGRAPH, gamma=gamma)) is not None) == converts


@pytest.mark.parametrize("chromaticity", [(0,) * 8, (0.3,) * 8, (float("inf"),) * 8, (0.3127, 0.329, *(1e-9,) * 6)])
def test_impossible_colours_are_ignored(chromaticity: tuple[float, ...]) -> None:
    assert conversion_to_srgb(_said(PHOTOGRAPH, gamma=1.0, chromaticity=chromaticity)) is None


def test_code_points_of_a_wider_gamut_are_heeded() -> None:
    converted = to_rgb(_said(PHOTOGRAPH, primaries=12))
    by_profile = to_rgb(_said(PHOTOGRAPH, icc_profile=matrix_profile(P3_CHROMATICITIES)))
    assert np.array_equal(np.asarray(converted), np.asarray(by_profile))
    assert not np.array_equal(np.asarray(converted), np.asarray(PHOTOGRAPH))
    assert conversion_to_srgb(_said(PHOTOGRAPH, primaries=1)) is None


def test_transparency_is_laid_on_white_after_colours_are_converted() -> None:
    image = Image.new("RGBA", (1, 1), (128, 128, 128, 128))
    grey = to_rgb(_said(Image.new("RGB", (1, 1), (128, 128, 128)), icc_profile=GAMMA)).getpixel((0, 0))
    assert isinstance(grey, tuple)
    expected = round((grey[0] * 128 + 255 * 127) / 255)
    assert to_rgb(_said(image, icc_profile=GAMMA)).getpixel((0, 0)) == pytest.approx((expected,) * 3, abs=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_large_image_is_converted_in_strips_as_it_would_be_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = _said(
        PHOTOGRAPH.convert("RGBA").convert(mode) if mode != "LA" else PHOTOGRAPH.convert("LA"), icc_profile=GAMMA
    )
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr("artifact.pixels._STRIP_PIXELS", 100)
    assert np.array_equal(np.asarray(to_rgb(image)), whole)


def test_large_image_is_converted_nearly_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    image = _said(PHOTOGRAPH, icc_profile=matrix_profile(P3_CHROMATICITIES, 2.2))
    exact = np.asarray(to_rgb(image)).astype(int)
    monkeypatch.setattr(colour, "_MOST_EXACT_PIXELS", 1)
    assert np.abs(np.asarray(to_rgb(image)).astype(int) - exact).max() <= 2


def test_profiles_are_kept_for_the_next_image_and_not_without_end() -> None:
    colour._conversion.cache_clear()
    for number in range(40):
        image = _said(PHOTOGRAPH, icc_profile=matrix_profile(SRGB_CHROMATICITIES, 1 + number / 40))
        assert conversion_to_srgb(image) is conversion_to_srgb(image)
    kept = colour._conversion.cache_info()
    assert (kept.hits, kept.misses) == (40, 40)
    assert kept.currsize <= 8
