"""What the pixels of an image file look like, in 8-bit sRGB: one definition for training and serving.

What the file says of sample depth and format, palette, transparency, gamma, colour profile and orientation is heeded as
browsers heed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from artifact.colour import ColourConversion, conversion_to_srgb
from artifact.tiff_samples import is_signed, sample_range

# Pixels that are converted to RGB at once.
_STRIP_PIXELS = 1_000_000

# What brings an image of each EXIF orientation upright; 1 is upright already.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and in 8-bit sRGB, whatever mode it came in.

    EXIF orientation is applied, colours are converted to sRGB, transparency is then laid on white, and 16-bit, 32-bit
    and floating-point greyscale are scaled to 8 bits rather than clipped.

    Raises:
        ValueError: floats are not finite. Pillow raises this and others where the image is damaged.
    """
    _forget_xmp(image)
    image.load()  # first: it turns a TIFF upright by itself, and raises where pixels are missing
    conversion = conversion_to_srgb(image)
    turn = _TURNS.get(orientation(image))
    if image.mode == "RGB" and "transparency" not in image.info and conversion is None:
        return image if turn is None else image.transpose(turn)
    reading = _Reading(_range(image), is_signed(image), conversion)
    image = image if turn is None else image.transpose(turn)
    if image.width * image.height <= _STRIP_PIXELS:
        return reading.rgb(image)
    converted = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        converted.paste(reading.rgb(strip), (0, top))
    return converted


def orientation(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1 to 8; damaged EXIF says nothing. Pillow applies a TIFF's."""
    data = image.info.get("exif")
    if not data or isinstance(image, TiffImageFile):
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        found = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # the pixels are good whatever their description raises
        return 1
    return found if found in _TURNS else 1


def _forget_xmp(image: Image.Image) -> None:
    """Browsers heed no orientation that only XMP tells; Pillow does when it loads a TIFF."""
    image.info.pop("xmp", None)


def _range(image: Image.Image) -> tuple[float, float]:
    """The values of black and white of an image that has more than 8 bits of grey."""
    told = sample_range(image)
    if image.mode != "F":
        return told or (0, 65535)  # other formats have at most 16 bits, in 16 or 32
    # By convention floats span [0, 1]; some writers keep the range of 8 bits.
    largest = 1 if max(_largest(strip) for _, strip in _strips(image)) <= 1 else 255
    return (largest, 0) if told == (1, 0) else (0, largest)


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in strips of whole rows, each with the row it begins at: conversions need memory for several copies."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


@dataclass(frozen=True)
class _Reading:
    """How the samples of an image are to be understood.

    Attributes:
        range: values of black and white, of grey with more than 8 bits.
        signed: whether the samples are signed.
        conversion: to sRGB.
    """

    range: tuple[float, float]
    signed: bool
    conversion: ColourConversion | None

    def rgb(self, image: Image.Image) -> Image.Image:
        """A part of the image in 8-bit sRGB, on white."""
        image, alpha = self._in_8_bits(image)
        if image.mode in ("La", "LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            alpha = image.getchannel("A")
            if self.conversion is None:  # quicker than one by one
                return _on_white(image)
        image = self._in_srgb(image)
        if alpha is not None:
            image.putalpha(alpha)
            return _on_white(image)
        return image

    def _in_srgb(self, image: Image.Image) -> Image.Image:
        if self.conversion is None:
            return image.convert("RGB")
        if self.conversion.mode == "L" and image.mode == "RGBA":  # three equal channels
            return self.conversion.apply(image.getchannel("R"))
        return self.conversion.apply(image.convert(self.conversion.mode))

    def _in_8_bits(self, image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
        """The image with samples of 8 bits, and its alpha, where it had more and said which is transparent."""
        if image.mode == "L" and self.signed:
            return image.point([value ^ 128 for value in range(256)]), None
        if image.mode != "F" and not image.mode.startswith("I"):
            return image, None
        values = np.asarray(image)
        black, white = self.range
        if image.mode == "I" and max(self.range) > 2**31:  # Pillow has no unsigned mode
            values = values.view(np.uint32)
        transparent = image.info.get("transparency")
        alpha = (
            None if transparent is None else Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        )
        return Image.fromarray(_scaled(values, black, white)), alpha


def _scaled(values: npt.NDArray[np.generic], black: float, white: float) -> npt.NDArray[np.uint8]:
    """Grey in 8 bits, of values of any kind; what is out of the range is black or white."""
    kind = np.float32 if values.dtype == np.float32 else np.float64
    clipped = np.clip(values.astype(kind), min(black, white), max(black, white))
    scaled: npt.NDArray[np.uint8] = np.rint((clipped - kind(black)) * kind(255 / (white - black))).astype(np.uint8)
    return scaled


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _largest(image: Image.Image) -> float:
    """The largest value of an image of floats, or 0.

    Raises:
        ValueError: a value is not finite.
    """
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a pixel is no number, or infinite")
    return float(values.max(initial=0))
