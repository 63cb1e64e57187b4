"""Colours by the formulas of their standards, in floating point: what pixels have to be, without any colour engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]
"""(..., 3) in [0, 1], or in levels of 255 where it is said."""

ADOBE_RGB = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
DISPLAY_P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def levels_of_gamma(encoded: Values, gamma: float, chromaticities: Sequence[float] = SRGB) -> Values:
    """sRGB levels of colours of a display with this gamma, whose white is that of sRGB."""
    return 255 * encode(np.clip(encoded**gamma @ _to_srgb(chromaticities).T, 0, 1))


def levels_of_p3(encoded: Values) -> Values:
    """sRGB levels of Display P3, which has the curve of sRGB."""
    return 255 * encode(np.clip(decode(encoded) @ _to_srgb(DISPLAY_P3).T, 0, 1))


def encode(light: Values) -> Values:
    """IEC 61966-2-1, from light to samples."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def decode(encoded: Values) -> Values:
    """IEC 61966-2-1, from samples to light."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def on_white(levels: Values, alpha: Values) -> Values:
    """Levels of 255 laid on white; alpha (...) in [0, 1]."""
    return levels * alpha[..., None] + 255 * (1 - alpha[..., None])


def _to_srgb(chromaticities: Sequence[float]) -> Values:
    return np.asarray(np.linalg.inv(_to_xyz(SRGB)) @ _to_xyz(chromaticities))


def _to_xyz(chromaticities: Sequence[float]) -> Values:
    x, y = np.asarray(chromaticities, float).reshape(4, 2).T
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return np.asarray(columns[:, 1:] * np.linalg.solve(columns[:, 1:], columns[:, 0]))
