"""From a decoded image to the network's input: one definition for training, export and serving.

Training writes it into the checkpoint, export into the manifest, and the service applies it from there, so the three
cannot drift apart.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocessing(BaseModel):
    """Resize the shorter side, crop the centre, scale to [0, 1] and normalise each channel.

    Attributes:
        resize: length of the shorter side after resizing, in pixels.
        crop: side of the square centre crop, in pixels; the network's input is (3, crop, crop).
        interpolation: resampling filter of the resize (antialiased, as Pillow does it).
        mean: mean of red, green and blue, for values in [0, 1].
        std: standard deviation of red, green and blue, for values in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: int = Field(gt=0)
    crop: int = Field(gt=0)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, image: Image.Image) -> Float32Array:
        """Return the network's input for one image, (3, crop, crop) float32."""
        return self.normalise(self.fit(image))

    def fit(self, image: Image.Image) -> UInt8Array:
        """Resize and crop; return (crop, crop, 3) uint8 pixels in RGB."""
        image = to_rgb(image)
        if image.size == (self.crop, self.crop) and self.resize == self.crop:
            return np.asarray(image)
        width, height = image.size
        scale = self.resize / min(width, height)
        # Of a long, thin image only the middle is resized: all of it could cost gigabytes for a strip nobody sees.
        x, y, reach = width / 2, height / 2, self.crop / scale
        box = (max(0.0, x - reach), max(0.0, y - reach), min(width, x + reach), min(height, y + reach))
        size = (max(self.crop, round((box[2] - box[0]) * scale)), max(self.crop, round((box[3] - box[1]) * scale)))
        image = image.resize(size, _RESAMPLING[self.interpolation], box=box)
        return np.asarray(image.crop(_centre_box(*size, self.crop)))

    def normalise(self, pixels: UInt8Array) -> Float32Array:
        """Turn (..., H, W, 3) uint8 pixels into (..., 3, H, W) float32 network input."""
        mean = np.asarray(self.mean, np.float32) * np.float32(255)
        scale = np.float32(1) / (np.asarray(self.std, np.float32) * np.float32(255))
        normalised = (pixels.astype(np.float32) - mean) * scale
        return np.ascontiguousarray(np.moveaxis(normalised, -1, -3))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and in 8-bit RGB, whatever mode it came in.

    EXIF orientation is applied, transparency is laid on white, and 16-bit and floating-point greyscale are scaled to
    8 bits rather than clipped.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _grey_from(np.asarray(image).astype(np.float64) / 257)
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        # Pillow keeps 16-bit greyscale of some formats in 32-bit modes; floats conventionally span [0, 1].
        brightest = values.max(initial=0)
        return _grey_from(values / 257 if brightest > 255 else values * 255 if brightest <= 1 else values)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _grey_from(values: npt.NDArray[np.float64]) -> Image.Image:
    """Make an RGB image of (H, W) grey values in [0, 255]."""
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")


def _centre_box(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """The centred square inside a width x height image, as (left, top, right, bottom)."""
    left, top = round((width - side) / 2), round((height - side) / 2)
    return left, top, left + side, top + side
