"""From the bytes of an image file to the network's input, refusing what is not an image or is too large."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from artifact.formats import READABLE_FORMATS
from artifact.image_files import DamagedFile, UnsupportedFile, open_image
from artifact.preprocessing import Float32Array, Preprocessing, UInt8Array

_log = logging.getLogger(__name__)


class ImageError(ValueError):
    """The bytes cannot be classified; subclasses say why, and the message says it to the user."""


class EmptyImage(ImageError):  # noqa: N818 (named like the states they tell)
    """There are no bytes."""


class ImageTooLarge(ImageError):  # noqa: N818
    """The file has more bytes than allowed."""


class TooManyPixels(ImageError):  # noqa: N818
    """The image would have more pixels than allowed when decoded."""


class NotAnImage(ImageError):  # noqa: N818
    """The bytes are not in a format that is read."""


class UnsupportedImage(ImageError):  # noqa: N818
    """The image is of a format or a kind that is not read, and may be sound; the message says which."""


class CorruptImage(ImageError):  # noqa: N818
    """The bytes begin like an image but cannot be decoded."""


class ImageTooCostly(ImageError):  # noqa: N818
    """To decode the image takes more processor time or memory than allowed."""


# All of the above, each made from its message.
IMAGE_ERRORS = (
    EmptyImage,
    ImageTooLarge,
    TooManyPixels,
    NotAnImage,
    UnsupportedImage,
    CorruptImage,
    ImageTooCostly,
)


@dataclass(frozen=True)
class ImageDecoder:
    """Decodes image files for one model. Safe to use from several threads.

    Attributes:
        preprocessing: of the model.
        max_bytes: largest file.
        max_pixels: largest image, before it is resized.
        formats: those that are read, of `artifact.formats.FORMATS`.
    """

    preprocessing: Preprocessing
    max_bytes: int
    max_pixels: int
    formats: tuple[str, ...] = READABLE_FORMATS

    def decode(self, data: bytes) -> Float32Array:
        """Return the network's input, (3, H, W).

        Raises:
            ImageError: see `fit`.
        """
        return self.preprocessing.normalise(self.fit(data))

    def fit(self, data: bytes) -> UInt8Array:
        """Return the pixels that the network sees, (H, W, 3).

        Raises:
            ImageError: the bytes are empty, too many, no image, of a kind that is not read, damaged, or an image with
                too many pixels.
            MemoryError: there is not enough of it.
        """
        self.check_bytes(data)
        try:
            image = open_image(data, self.formats)
        except UnidentifiedImageError as error:
            raise NotAnImage(f"the file is in none of these formats: {', '.join(self.formats)}") from error
        except UnsupportedFile as error:
            raise UnsupportedImage(f"{error}, which is not read here; /model lists the formats that are") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise self._too_many_pixels() from error
        except DamagedFile as error:
            raise CorruptImage("the image's header is damaged") from error
        width, height = image.size
        if width * height > self.max_pixels:
            raise self._too_many_pixels(f"it has {width} x {height}")
        try:
            return self.preprocessing.fit(image)
        except MemoryError:  # this server's fault, not the image's
            raise
        except Exception as error:  # as above
            _log.debug("an image could not be decoded", exc_info=error)
            raise CorruptImage("the image is truncated or damaged") from error

    def check_bytes(self, data: bytes) -> None:
        """Return if there are bytes, and not too many.

        Raises:
            EmptyImage, ImageTooLarge: there are none, or too many.
        """
        if not data:
            raise EmptyImage("the image is empty")
        if len(data) > self.max_bytes:
            raise ImageTooLarge(f"the image has more than {self.max_bytes} bytes")

    def _too_many_pixels(self, size: str = "it has far more") -> TooManyPixels:
        return TooManyPixels(f"the image may have at most {self.max_pixels} pixels; {size}")
