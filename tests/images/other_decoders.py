"""Image files as ImageMagick or libvips decode them, to compare with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from artifact.colour_profiles import SRGB_CHROMATICITIES, matrix_profile
from artifact.preprocessing import UInt8Array

Decoder = Callable[[Path], UInt8Array]
"""From an image file to upright sRGB pixels on white, (H, W, 3)."""

_LONGEST_S = 60


class CannotDecode(Exception):  # noqa: N818 (a state)
    """The other decoder refuses the file; the message is its own."""


def other_decoder() -> Decoder | None:
    """The one that is installed."""
    for name in ("magick", "convert-im6.q16", "convert-im6"):
        if program := shutil.which(name):
            return lambda path: _by_imagemagick(program, path)
    return _by_vips if shutil.which("vips") else None


def _by_imagemagick(program: str, path: Path) -> UInt8Array:
    """The first frame. Colours go by relative colorimetry and black stays what it is, as in browsers."""
    with TemporaryDirectory() as folder:
        profile, decoded = Path(folder, "srgb.icc"), Path(folder, "decoded.ppm")
        profile.write_bytes(matrix_profile(SRGB_CHROMATICITIES))
        colours = ["-intent", "relative", "+black-point-compensation", "-profile", profile, "-colorspace", "sRGB"]
        white = ["-background", "white", "-alpha", "remove", "-alpha", "off"]
        _run(program, f"{path}[0]", "-auto-orient", *colours, *white, "-depth", "8", f"ppm:{decoded}")
        return np.asarray(Image.open(decoded).convert("RGB"))


def _by_vips(path: Path) -> UInt8Array:
    with TemporaryDirectory() as folder:
        upright, srgb, flat, decoded = (Path(folder, f"{name}.v") for name in ("upright", "srgb", "flat", "decoded"))
        profile = Path(folder, "srgb.icc")
        profile.write_bytes(matrix_profile(SRGB_CHROMATICITIES))
        _run("vips", "autorot", path, upright)
        try:
            _run("vips", "icc_transform", upright, srgb, profile, "--embedded", "--intent", "relative")
        except CannotDecode:  # it has no profile
            _run("vips", "colourspace", upright, srgb, "srgb")
        bands = int(subprocess.check_output(["vipsheader", "-f", "bands", srgb]))
        if bands in (2, 4):
            _run("vips", "flatten", srgb, flat, "--background", "255")
        else:
            flat = srgb
        _run("vips", "colourspace", flat, decoded, "srgb")
        ppm = Path(folder, "decoded.ppm")
        _run("vips", "copy", decoded, ppm)
        return np.asarray(Image.open(ppm).convert("RGB"))


def _run(*command: object) -> None:
    try:
        subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise CannotDecode("it took too long") from error
    except subprocess.CalledProcessError as error:
        raise CannotDecode((error.stderr.strip().splitlines() or ["no reason given"])[-1]) from error
