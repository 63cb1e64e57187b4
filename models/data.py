"""From labelled images to batches of network input, augmented for training.

Every random choice is a function of the seed and the training step alone, so a run can be repeated, and resumed in the
middle of an epoch, exactly, with any number of processes that decode.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from artifact.cores import usable_cores
from artifact.preprocessing import Preprocessing, UInt8Array
from models.bad_images import BadImages, find_bad, readable
from models.distortion import Distortion
from models.examples import DataError, Examples

# Images whose fitted pixels are smaller than this stay decoded in memory: CIFAR does, ImageNet is decoded every epoch.
_IN_MEMORY_SIDE = 64
_PADDING = 4
# Of the area and the aspect ratio that a random crop has (Szegedy et al. 2015, section 6).
_SMALLEST_AREA, _LARGEST_RATIO = 0.08, 4 / 3
_MOST_WORKERS = 8
_WHOLE = slice(None)


class Batch(NamedTuple):
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
    """Chosen examples as batches.

    Args:
        examples: all there are.
        indices: of those chosen.
        preprocessing: of the network.
        pixels: of the examples.
        distortion: of augmented images.
        workers: processes that decode ahead of what is used; none decodes when a batch is asked for.
        pinned: whether batches lie in pinned memory, from where a GPU copies while it computes.
    """

    def __init__(
        self,
        examples: Examples,
        indices: np.ndarray,
        preprocessing: Preprocessing,
        pixels: Pixels,
        distortion: Distortion = Distortion(),  # noqa: B008 (frozen)
        workers: int = 0,
        pinned: bool = False,
    ) -> None:
        self.examples = examples
        self.indices = indices
        self._preprocessing = preprocessing
        self._pixels = pixels
        self._distortion = distortion
        self._workers = workers
        self._pinned = pinned

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def augmentation(self) -> str:
        """What is done to images in training, for people to read."""
        return f"{self._pixels.augmentation}{self._distortion}"

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """All images once, in order, without augmentation.

        Raises:
            DataError: an image cannot be decoded.
        """

        def batch(number: int) -> Batch:
            chosen = self.indices[number * batch_size : (number + 1) * batch_size]
            return self._batch(chosen, self._pixels.fitted(chosen))

        return self._load(batch, range(-(-len(self) // batch_size)))

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, first: int = 0, share: slice = _WHOLE
    ) -> Iterator[Batch]:
        """The augmented batches of one epoch from batch number `first` on, or a share of each.

        An incomplete last batch is left out.

        Batch norm needs more than a few images, which is why the rest is left out: another order brings them in the
        next epoch.

        Half of the images are mirrored in even epochs, the others in odd ones: a network that sees an image twice sees
        both views (alternating flip; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.6).

        Raises:
            DataError: an image cannot be decoded.
        """
        in_odd_epochs = np.random.default_rng(seed).random(len(self.examples)) < 0.5
        order = np.random.default_rng((seed, epoch)).permutation(self.indices)

        def batch(number: int) -> Batch:
            chosen = order[number * batch_size : (number + 1) * batch_size]
            random = np.random.default_rng((seed, epoch, number))
            mirrored = in_odd_epochs[chosen] == bool(epoch % 2)
            augmented = self._pixels.augmented(chosen, mirrored, random, share)
            if self._distortion:
                seeds = random.integers(0, 2**63, len(chosen))[share]
                augmented = np.stack([self._distortion.of(*pair) for pair in zip(augmented, seeds, strict=True)])
            return self._batch(chosen[share], augmented)

        return self._load(batch, range(first, self.batches(batch_size)))

    def batches(self, batch_size: int) -> int:
        """Number of batches that `shuffled` gives in an epoch."""
        return len(self) // batch_size

    def _batch(self, chosen: np.ndarray, pixels: UInt8Array) -> Batch:
        images = torch.from_numpy(self._preprocessing.normalise(pixels))
        classes = torch.from_numpy(self.examples.classes[chosen])
        return Batch(images.contiguous(memory_format=torch.channels_last), classes)

    def _load(self, batch: Callable[[int], Batch], numbers: range) -> Iterator[Batch]:
        """The batches of these numbers, in this order."""
        loader = DataLoader(
            _Batches(batch),
            sampler=numbers,
            batch_size=None,  # an item is a batch already
            num_workers=(workers := min(self._workers, len(numbers))),
            multiprocessing_context="fork" if workers else None,  # shares the images, and pickles nothing
            pin_memory=self._pinned,
            generator=torch.Generator(),  # its own, so that the network's noise is the same with and without
        )
        for loaded in loader:
            if isinstance(loaded, DataError):
                raise loaded
            yield loaded


class _Batches(TorchDataset[Batch | DataError]):
    """Batches by number, where they are made."""

    def __init__(self, batch: Callable[[int], Batch]) -> None:
        self._batch = batch

    def __getitem__(self, number: int) -> Batch | DataError:
        """The batch; or why there is none, which raised in a worker would be told with its traceback."""
        try:
            return self._batch(number)
        except DataError as error:
            return error


def default_workers(preprocessing: Preprocessing, processes: int = 1) -> int:
    """How many processes decode ahead: none for images that stay decoded, or where processes cannot be forked safely.

    Args:
        preprocessing: of the network.
        processes: that train on this machine, each with workers of its own.
    """
    if _stays_decoded(preprocessing) or sys.platform != "linux":
        return 0
    return max(0, min(_MOST_WORKERS, usable_cores() // processes - 1))


def _stays_decoded(preprocessing: Preprocessing) -> bool:
    return preprocessing.crop <= _IN_MEMORY_SIDE


def load_pixels(
    examples: Examples, preprocessing: Preprocessing, bad_images: BadImages = "stop"
) -> tuple[Examples, Pixels]:
    """The examples to use and their pixels: in memory where they are small, else decoded when asked for.

    Raises:
        DataError: an image cannot be read, and "stop" was said; of large ones this is raised when it is asked for. Or
            a class has no image that can be read.
    """
    if not _stays_decoded(preprocessing):
        examples = readable(examples, preprocessing, bad_images)
        return examples, _DecodedPixels(examples, preprocessing)
    side = preprocessing.crop
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

    augmentation = (
        f"mirrored in every second epoch, {_SMALLEST_AREA:.0%} to 100% of the area, aspect ratios of 3:4 to 4:3"
    )

    def __init__(self, examples: Examples, preprocessing: Preprocessing) -> None:
        self._examples = examples
        self._preprocessing = preprocessing
        # A crop of the smallest area keeps at least as many pixels as it is made of.
        self._shorter_side = math.ceil(preprocessing.crop / math.sqrt(_SMALLEST_AREA / _LARGEST_RATIO))

    def fitted(self, indices: np.ndarray) -> UInt8Array:
        return np.stack([self._examples.fitted(index, self._preprocessing) for index in indices])

    def augmented(
        self, indices: np.ndarray, mirrored: np.ndarray, random: np.random.Generator, share: slice = _WHOLE
    ) -> UInt8Array:
        seeds = random.integers(0, 2**63, len(indices))[share]
        crops = np.stack([self._random_crop(*pair) for pair in zip(indices[share], seeds, strict=True)])
        crops[mirrored[share]] = crops[mirrored[share], :, ::-1]
        return crops

    def _random_crop(self, index: int, seed: int) -> UInt8Array:
        random = np.random.default_rng(seed)
        image = self._examples.image(index, self._shorter_side)
        side = self._preprocessing.crop
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=_random_box(*image.size, random)))


def _random_box(width: int, height: int, random: np.random.Generator) -> tuple[float, float, float, float]:
    """A box of a random area and aspect ratio; the whole image where none fits."""
    for _ in range(10):
        area = width * height * random.uniform(_SMALLEST_AREA, 1.0)
        ratio = np.exp(random.uniform(-np.log(_LARGEST_RATIO), np.log(_LARGEST_RATIO)))
        box_width, box_height = float(np.sqrt(area * ratio)), float(np.sqrt(area / ratio))
        if box_width <= width and box_height <= height:
            left, top = random.uniform(0, width - box_width), random.uniform(0, height - box_height)
            return left, top, left + box_width, top + box_height
    return 0, 0, width, height
