"""Labelled images, whatever form they are kept in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath

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
        folder: where the names begin, or the tar and the folder in it; empty where the images are no files.
        left_out: names of the examples that are left out, because they cannot be read.
        validation: (N,) whether an example is in the data's own folder for validation; None where it has none.
    """

    labels: tuple[str, ...]
    classes: np.ndarray
    names: Sequence[str]
    _open: Callable[[int], Image.Image]
    folder: str = ""
    left_out: Sequence[str] = ()
    validation: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def digest(self) -> str:
        """SHA-256 of all names and classes, and of what is left out, in hexadecimal; no image is read."""
        content = [*self.names, self.classes.tolist()]
        if self.left_out:
            content.append(list(self.left_out))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def path(self, index: int) -> str:
        """Where an example lies, for people to read."""
        return str(PurePath(self.folder, self.names[index]))

    def without(self, bad: Sequence[int]) -> Examples:
        """The other examples, in the same order and of the same classes.

        Raises:
            DataError: a class has no other.
        """
        if not bad:
            return self
        kept = sorted(set(range(len(self))).difference(bad))
        if emptied := sorted({*self.classes[bad].tolist()} - {*self.classes[kept].tolist()}):
            classes = ", ".join(self.labels[index] for index in emptied[:3])
            raise DataError(f"{len(emptied)} of the classes have no image that can be read ({classes})")
        return replace(
            self,
            classes=self.classes[kept],
            names=[self.names[index] for index in kept],
            validation=None if self.validation is None else self.validation[kept],
            left_out=[*self.left_out, *(self.names[index] for index in bad)],
            _open=lambda index: self._open(kept[index]),
        )

    def image(self, index: int, shorter_side: int | None = None) -> Image.Image:
        """Decode one example, upright and in RGB.

        Args:
            index: of the example.
            shorter_side: pixels of it that are enough. A JPEG is then decoded at the smallest of its scales, down to
                an eighth, that has them, which takes a fraction of the time; None decodes it at its full size.

        Raises:
            DataError: its file cannot be decoded.
        """
        with self._decoding(index) as image:
            if shorter_side is not None:
                image.draft(None, (shorter_side, shorter_side))
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
            raise DataError(f"cannot decode {self.path(index)}: {error} (--bad-images skip leaves it out)") from error
