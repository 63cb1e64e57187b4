"""From labelled images to batches of network input, with crop and flip augmentation for training.

Every random choice is a function of the seed and the training step alone, so a run can be repeated, and resumed in the
middle of an epoch, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from artifact.preprocessing import Preprocessing, UInt8Array
from models.bad_images import BadImages, find_bad, readable
from models.examples import Examples

# Images whose fitted pixels are smaller than this stay decoded in memory: CIFAR does, ImageNet is decoded every epoch.
_IN_MEMORY_SIDE = 64
_PADDING = 4
_WHOLE = slice(None)


@dataclass(frozen=True)
class Batch:
    """Network input (N, 3, H, W) float32 and the class of each image (N,) int64."""

    images: Tensor
    classes: Tensor


class Pixels(Protocol):
    """Fitted and augmented uint8 pixels of chosen examples."""

    def fitted(self, indices: np.ndarray) -> UInt8Array:
        """Pixels as the service would see them, (N, H, W, 3)."""

    @property
    def augmentation(self) -> str:
        """What `augmented` does, for people to read."""

    def augmented(
        self, indices: np.ndarray, mirrored: np.ndarray, random: np.random.Generator, share: slice = _WHOLE
    ) -> UInt8Array:
        """Randomly cropped pixels, (N, H, W, 3), of a share of the images at these indices.

        Args:
            indices: of the examples of a batch.
            mirrored: which of them are mirrored.
            random: what is drawn from it for an image depends on the batch alone, not on the share.
            share: whose pixels are returned.
        """


class Dataset:
    """Chosen examples as batches."""

    def __init__(self, examples: Examples, indices: np.ndarray, preprocessing: Preprocessing, pixels: Pixels) -> None:
        self.examples = examples
        self.indices = indices
        self._preprocessing = preprocessing
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def augmentation(self) -> str:
        """What is done to images in training, for people to read."""
        return self._pixels.augmentation

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """All images once, in order, without augmentation."""
        for start in range(0, len(self), batch_size):
            chosen = self.indices[start : start + batch_size]
            yield self._batch(chosen, self._pixels.fitted(chosen))

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, first: int = 0, share: slice = _WHOLE
    ) -> Iterator[Batch]:
        """The augmented batches of one epoch from batch number `first` on, or a share of each.

        An incomplete last batch is left out.

        Batch norm needs more than a few images, which is why the rest is left out: another order brings them in the
        next epoch.

        Half of the images are mirrored in even epochs, the others in odd ones: a network that sees an image twice sees
        both views (alternating flip; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.6).
        """
        in_odd_epochs = np.random.default_rng(seed).random(len(self.examples)) < 0.5
        order = np.random.default_rng((seed, epoch)).permutation(self.indices)
        for number in range(first, self.batches(batch_size)):
            chosen = order[number * batch_size : (number + 1) * batch_size]
            random = np.random.default_rng((seed, epoch, number))
            mirrored = in_odd_epochs[chosen] == bool(epoch % 2)
            yield self._batch(chosen[share], self._pixels.augmented(chosen, mirrored, random, share))

    def batches(self, batch_size: int) -> int:
        """Number of batches that `shuffled` gives in an epoch."""
        return len(self) // batch_size

    def _batch(self, chosen: np.ndarray, pixels: UInt8Array) -> Batch:
        images = torch.from_numpy(self._preprocessing.normalise(pixels))
        classes = torch.from_numpy(self.examples.classes[chosen])
        return Batch(images.contiguous(memory_format=torch.channels_last), classes)


def load_pixels(
    examples: Examples, preprocessing: Preprocessing, bad_images: BadImages = "stop"
) -> tuple[Examples, Pixels]:
    """The examples to use and their pixels: in memory where they are small, else decoded when asked for.

    Raises:
        DataError: an image cannot be read, and "stop" was said; of large ones this is raised when it is asked for. Or
            a class has no image that can be read.
    """
    side = preprocessing.crop
    if side > _IN_MEMORY_SIDE:
        examples = readable(examples, preprocessing, bad_images)
        return examples, _DecodedPixels(examples, preprocessing)
    pixels: UInt8Array = np.empty((len(examples), side, side, 3), np.uint8)

    def decode(index: int) -> None:
        pixels[index] = examples.fitted(index, preprocessing)

    bad = find_bad(examples, decode, bad_images)
    return examples.without(bad), _InMemoryPixels(np.delete(pixels, bad, axis=0) if bad else pixels)


class _InMemoryPixels:
    """Small images: decoded once; augmented by a random crop of the padded image (He et al. 2016, 4.2)."""

    augmentation = f"mirrored in every second epoch, moved by up to {_PADDING} pixels"

    def __init__(self, pixels: UInt8Array) -> None:
        self._pixels = pixels

    def fitted(self, indices: np.ndarray) -> UInt8Array:
        return self._pixels[indices]

    def augmented(
        self, indices: np.ndarray, mirrored: np.ndarray, random: np.random.Generator, share: slice = _WHOLE
    ) -> UInt8Array:
        side = self._pixels.shape[1]
        padded = np.pad(self._pixels[indices[share]], ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
        span = np.arange(side)
        rows = random.integers(0, 2 * _PADDING + 1, len(indices))[share, None] + span  # (N, H)
        columns = random.integers(0, 2 * _PADDING + 1, len(indices))[share, None] + span  # (N, W)
        columns[mirrored[share]] = columns[mirrored[share], ::-1]
        return padded[np.arange(len(padded))[:, None, None], rows[:, :, None], columns[:, None, :]]


class _DecodedPixels:
    """Large images: decoded each time; augmented by a random area and aspect ratio (Szegedy et al. 2015)."""

    augmentation = "mirrored in every second epoch, 8% to 100% of the area, aspect ratio changed by up to a third"

    def __init__(self, examples: Examples, preprocessing: Preprocessing) -> None:
        self._examples = examples
        self._preprocessing = preprocessing
        self._pool = ThreadPoolExecutor(thread_name_prefix="decode")  # Pillow decodes outside the interpreter lock

    def fitted(self, indices: np.ndarray) -> UInt8Array:
        return self._gather(lambda index: self._examples.fitted(index, self._preprocessing), list(indices))

    def augmented(
        self, indices: np.ndarray, mirrored: np.ndarray, random: np.random.Generator, share: slice = _WHOLE
    ) -> UInt8Array:
        seeds = random.integers(0, 2**63, len(indices))[share]
        crops = self._gather(lambda pair: self._random_crop(*pair), list(zip(indices[share], seeds, strict=True)))
        crops[mirrored[share]] = crops[mirrored[share], :, ::-1]
        return crops

    def _gather(self, fetch: Callable[[Any], UInt8Array], keys: list[Any]) -> UInt8Array:
        return np.stack(list(self._pool.map(fetch, keys)))

    def _random_crop(self, index: int, seed: int) -> UInt8Array:
        random = np.random.default_rng(seed)
        image = self._examples.image(index)
        side = self._preprocessing.crop
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=_random_box(*image.size, random)))


def _random_box(width: int, height: int, random: np.random.Generator) -> tuple[float, float, float, float]:
    """A box of 8% to 100% of the area and an aspect ratio of 3/4 to 4/3; the whole image where none fits."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        box_width, box_height = float(np.sqrt(area * ratio)), float(np.sqrt(area / ratio))
        if box_width <= width and box_height <= height:
            left, top = random.uniform(0, width - box_width), random.uniform(0, height - box_height)
            return left, top, left + box_width, top + box_height
    return 0, 0, width, height
