"""From the colours a file says it has to those of sRGB, by LittleCMS, as browsers do it.

What counts is, in this order: an ICC profile that suits the pixels, code points for primaries (ITU-T H.273), that it is
sRGB, and a PNG's gAMA with or without cHRM (PNG, third edition, section 4.3). Without any of these it is sRGB.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from artifact.colour_profiles import (
    BT2020_CHROMATICITIES,
    P3_CHROMATICITIES,
    SRGB_CHROMATICITIES,
    Chromaticities,
    matrix_profile,
)

Mode = Literal["L", "RGB", "CMYK"]

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "F")
# LittleCMS's names of colour spaces, and the classes of profiles that describe an image's colours.
_SPACES: dict[Mode, str] = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
_CLASSES = ("scnr", "mntr", "prtr", "spac")
# Those of printers have half a megabyte to three. Larger ones are ignored, for they are kept.
_MOST_PROFILE_BYTES, _MOST_KEPT = 4_000_000, 8
_MOST_TAGS = 100  # LittleCMS's own limit
# Of so many pixels each is computed; of more, from a table: of CMYK that is off by 0.1 levels on average, 17 at most.
_MOST_EXACT_PIXELS = 4_000_000
# What a profile may change and be that of sRGB: the roundings of those that are common.
_SAME_LEVELS = 2
# Of a gamma and of chromaticities: what makes no difference to be seen, as libpng has it.
_SAME_GAMMA, _SAME_CHROMATICITY = 0.05, 0.01
# Rec. ITU-T H.273, table 2. The gamut of others differs little from sRGB's.
_PRIMARIES = {9: BT2020_CHROMATICITIES, 11: P3_CHROMATICITIES, 12: P3_CHROMATICITIES}


@dataclass(frozen=True)
class ColourConversion:
    """Makes sRGB of the colours of one profile.

    Attributes:
        mode: of the images it takes.
    """

    mode: Mode
    _transform: ImageCms.ImageCmsTransform

    def apply(self, image: Image.Image) -> Image.Image:
        """The image, of this mode, in sRGB: (H, W, 3)."""
        return ImageCms.applyTransform(image, self._transform)  # type: ignore[return-value]  # it is not in place


def conversion_to_srgb(image: Image.Image) -> ColourConversion | None:
    """What makes an image sRGB; None where it is, or where what it says of its colours makes no sense."""
    exact = image.width * image.height <= _MOST_EXACT_PIXELS
    profile = image.info.get("icc_profile")
    if profile and len(profile) <= _MOST_PROFILE_BYTES:
        for mode in _possible_modes(image):
            if not isinstance(found := _conversion(bytes(profile), mode, exact), _Unsuitable):
                return found
    if image.mode == "CMYK":
        return None
    if chromaticities := _PRIMARIES.get(image.info.get("primaries", 0)):
        return _suitable(_conversion(matrix_profile(chromaticities), "RGB", exact))
    if "srgb" in image.info:
        return None
    if gamma := image.info.get("gamma"):
        return _suitable(_of_gamma(gamma, image.info.get("chromaticity"), exact))
    return None


def _possible_modes(image: Image.Image) -> tuple[Mode, ...]:
    """Colours that a profile may be of. Of a PNG's grey it may not be one of RGB."""
    if image.mode in _GREY_MODES:
        return ("L",) if image.format == "PNG" else ("L", "RGB")
    if image.mode in ("LAB", "HSV"):  # which Pillow makes sRGB of
        return ()
    return ("CMYK",) if image.mode == "CMYK" else ("RGB",)


class _Unsuitable:
    """A profile that cannot be used for these pixels."""


_UNSUITABLE = _Unsuitable()
_Found = ColourConversion | _Unsuitable | None


def _suitable(found: _Found) -> ColourConversion | None:
    return None if isinstance(found, _Unsuitable) else found


@lru_cache(_MOST_KEPT)
def _conversion(profile: bytes, mode: Mode, exact: bool) -> _Found:
    """What makes sRGB of a profile's colours, or None if they are sRGB."""
    try:
        if _has_programs(profile):
            return _UNSUITABLE
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode] or source.profile.device_class not in _CLASSES:
            return _UNSUITABLE
        flags = ImageCms.Flags.NOOPTIMIZE if exact else ImageCms.Flags.HIGHRESPRECALC
        conversion = ColourConversion(mode, ImageCms.buildTransform(source, _srgb(), mode, "RGB", flags=flags))
        return None if _is_identity(conversion) else conversion
    except (ImageCms.PyCMSError, OSError, ValueError):  # Pillow's and LittleCMS's words for nonsense
        return _UNSUITABLE


def _has_programs(profile: bytes) -> bool:
    """Whether it has tags D2Bx (ICC.1:2022, 9.2.17), of as many steps a pixel as it likes; browsers know none."""
    count = min(int.from_bytes(profile[128:132], "big"), _MOST_TAGS)
    return any(profile[start : start + 3] == b"D2B" for start in range(132, 132 + 12 * count, 12))


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    """sRGB's profile, in version 2: with one of version 4 LittleCMS makes black of what is printed as dark grey."""
    return ImageCms.ImageCmsProfile(io.BytesIO(matrix_profile(SRGB_CHROMATICITIES)))


def _is_identity(conversion: ColourConversion) -> bool:
    """Whether it changes colours all over the gamut by no more than roundings."""
    if conversion.mode == "CMYK":
        return False
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    if conversion.mode == "L":
        colours, probe = np.stack([steps] * 3, axis=-1)[None], Image.fromarray(steps[None])
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        probe = Image.fromarray(colours)
    change = np.asarray(conversion.apply(probe)).astype(int) - colours
    return bool(np.abs(change).max() <= _SAME_LEVELS)


def _of_gamma(gamma: float, chromaticities: Chromaticities | None, exact: bool) -> _Found:
    """What makes sRGB of a PNG's colours.

    Args:
        gamma: of gAMA: the exponent that made samples of light.
        chromaticities: of cHRM; None stands for those of sRGB.
        exact: whether each pixel is computed.
    """
    usual = chromaticities is None or np.allclose(chromaticities, SRGB_CHROMATICITIES, 0, _SAME_CHROMATICITY)
    like_srgb = math.isclose(gamma * 2.2, 1, rel_tol=_SAME_GAMMA)
    if usual and like_srgb:
        return None
    try:
        profile = matrix_profile(
            SRGB_CHROMATICITIES if usual or chromaticities is None else chromaticities, None if like_srgb else 1 / gamma
        )
    except ValueError:
        return _UNSUITABLE
    return _conversion(profile, "RGB", exact)
