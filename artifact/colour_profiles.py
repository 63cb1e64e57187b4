"""ICC profiles made from numbers: primaries, white and tone curve (ICC.1:2001-04, three-component matrix-based)."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""CIE 1931 x and y of white, red, green and blue."""

_D65 = (0.3127, 0.3290)
SRGB_CHROMATICITIES: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""IEC 61966-2-1, and ITU-R BT.709."""
P3_CHROMATICITIES: Chromaticities = (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
"""SMPTE EG 432-1."""
BT2020_CHROMATICITIES: Chromaticities = (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
"""ITU-R BT.2020."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])  # the white of ICC's connection space
_HEADER_BYTES, _CURVE_POINTS = 128, 4096


def matrix_profile(chromaticities: Chromaticities, gamma: float | None = None) -> bytes:
    """An ICC profile of a display.

    Args:
        chromaticities: of white and the primaries.
        gamma: exponent that makes of a sample in [0, 1] light; None for the curve of sRGB.

    Raises:
        ValueError: there is no such display, or its numbers are too large for a profile.
    """
    try:
        with np.errstate(all="raise"):
            columns = _to_connection_space(chromaticities).T
        curve = _srgb_curve() if gamma is None else struct.pack(">4s4xIH2x", b"curv", 1, round(gamma * 256))
        tags = {b"wtpt": _xyz(_D50)} | {name: _xyz(column) for name, column in zip(_COLUMNS, columns, strict=True)}
    except (ArithmeticError, ValueError, np.linalg.LinAlgError, struct.error) as error:
        raise ValueError(f"there are no colours of {chromaticities} and gamma {gamma}") from error
    return _assembled(tags | dict.fromkeys(_CURVES, curve))


_COLUMNS, _CURVES = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")


def _to_connection_space(chromaticities: Chromaticities) -> npt.NDArray[np.float64]:
    """The (3, 3) matrix from linear RGB to XYZ, adapted to D50."""
    pairs = zip(chromaticities[::2], chromaticities[1::2], strict=True)
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in pairs)
    unscaled = np.stack(primaries, axis=1)
    matrix = unscaled * np.linalg.solve(unscaled, white)
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adapted: npt.NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ matrix
    return adapted


def _srgb_curve() -> bytes:
    encoded = np.linspace(0, 1, _CURVE_POINTS)
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    points = np.rint(light * 65535).astype(">u2")
    return struct.pack(">4s4xI", b"curv", _CURVE_POINTS) + bytes(points.tobytes())


def _xyz(values: npt.NDArray[np.float64]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values.tolist()))


def _assembled(tags: dict[bytes, bytes]) -> bytes:
    """The profile with these tags; equal ones are stored once."""
    start = _HEADER_BYTES + 4 + 12 * len(tags)
    offsets: dict[bytes, int] = {}
    content = b""
    for value in tags.values():
        if value not in offsets:
            offsets[value] = start + len(content)
            content += value
    table = b"".join(struct.pack(">4sII", name, offsets[value], len(value)) for name, value in tags.items())
    # Version 2.4, a monitor.
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(content), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", *(round(value * 65536) for value in _D50.tolist()))
    return head.ljust(_HEADER_BYTES, b"\0") + struct.pack(">I", len(tags)) + table + content
