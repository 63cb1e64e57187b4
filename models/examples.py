"""Labelled images, whatever form they are kept in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from artifact.pixels import to_rgb
from artifact.preprocessing import Preprocessing, UInt8Array


class DataError(ValueError):
    """The data folder or file is missing, empty or not in a form this reads."""


@dataclass(frozen=True)
class Examples:
    """Labelled images that are decoded on demand.

    Attributes:
        labels: class names, sorted; their order is that of the class indices.
        classes: class index of every example.
        names: a name of every example that stays the same wherever the data lies.
    """

    labels: tuple[str, ...]
    classes: np.ndarray
    names: Sequence[str]
    _open: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.classes)

    def digest(self) -> str:
        """SHA-256 of all names and classes, in hexadecimal; the images themselves are not read."""
        content = json.dumps([*self.names, self.classes.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def image(self, index: int) -> Image.Image:
        """Decode one example at its full size, upright and in RGB.

        Raises:
            DataError: its file cannot be decoded.
        """
        with self._decoding(index) as image:
            return to_rgb(image)

    def fitted(self, index: int, preprocessing: Preprocessing) -> UInt8Array:
        """Decode one example as it is served: resized and cropped, (crop, crop, 3).

        Raises:
            DataError: its file cannot be decoded.
        """
        with self._decoding(index) as image:
            return preprocessing.fit(image)

    @contextmanager
    def _decoding(self, index: int) -> Iterator[Image.Image]:
        try:
            yield self._open(index)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types for a damaged file
            raise DataError(f"cannot decode {self.names[index]}: {error}") from error
