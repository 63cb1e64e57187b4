"""Image files in the forms in which callers have them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

Image = bytes | str | os.PathLike[str] | BinaryIO
"""The bytes of an image file, its path, or the file, opened in binary mode."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file in memory.

    Attributes:
        name: for the answer of a batch.
    """

    name: str
    data: bytes


def read_image(image: Image) -> ImageFile:
    """Read the whole file; of an opened one, what is left of it.

    Raises:
        OSError: it cannot be read.
        TypeError: the file was opened as text.
    """
    if isinstance(image, bytes):
        return ImageFile("image", image)
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        # A name of the file system need not be text.
        return ImageFile(os.fsencode(path.name).decode(errors="replace"), path.read_bytes())
    data = image.read()
    if not isinstance(data, bytes):
        raise TypeError("open image files in binary mode")
    return ImageFile("image", data)
