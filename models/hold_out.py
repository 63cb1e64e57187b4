"""Images that training does not see, on which a network is judged: which they are, and how they are known again."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.examples import DataError, Examples

HELD_OUT_NAME = "held-out.json"
"""In an artifact, what `HeldOut` tells."""

_ENOUGH, _MOST = 500, 10_000


def default_held_out(images: int) -> int:
    """How many of so many images to hold out: a tenth, but 500 where a fifth are as many, and 10,000 at most."""
    return min(max(images // 10, min(_ENOUGH, images // 5)), _MOST)


def split(
    examples: Examples, held_out: int | None, instead: str = "give another --held-out"
) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and for validation: those in the data's own folder for it, or `held_out` of all.

    Each class gives the same share of its images, rounded so that a small class keeps at least half of them. Those it
    gives are spread over its files in name order. The split depends on the examples alone, never on a seed, so that
    networks trained in different runs stay comparable.

    Args:
        examples: all images.
        held_out: how many to hold out; None for as many as `default_held_out` says.
        instead: what to do where that is not possible.

    Raises:
        ValueError: the number is negative, or a class would have none left, or a number is given where the data has a
            folder for them.
    """
    everything = np.arange(len(examples))
    if examples.validation is not None:
        if held_out is not None:
            raise ValueError("the data has a val folder, which is held out: leave out --held-out")
        return everything[~examples.validation], everything[examples.validation]
    count = default_held_out(len(examples)) if held_out is None else held_out
    if count < 0:
        raise ValueError(f"cannot hold out {count} images: {instead}")
    members = [np.flatnonzero(examples.classes == label) for label in range(len(examples.labels))]
    sizes = np.array([len(each) for each in members])
    exact = count * sizes / sizes.sum()
    most = np.minimum(np.maximum(sizes // 2, np.ceil(exact)), np.maximum(sizes - 1, 0)).astype(int)
    if count > most.sum():
        raise ValueError(f"cannot hold out {count} of {len(examples)} images and leave some of each class: {instead}")
    shares = zip(members, _rounded(exact, most, count), strict=True)
    chosen = [each[np.arange(share) * len(each) // max(1, share)] for each, share in shares]
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(everything, validation), validation


def _rounded(exact: np.ndarray, most: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers near `exact`, at most `most` each and `count` in all: the largest remainders are rounded up."""
    shares = np.minimum(np.floor(exact).astype(int), most)
    while missing := count - int(shares.sum()):
        remainders = np.where(shares < most, exact - shares, -np.inf)
        shares[np.argsort(-remainders, kind="stable")[:missing]] += 1
        shares = np.minimum(shares, most)
    return shares


class HeldOut(BaseModel):
    """Which images a training did not see; told by their places, since names of files may tell too much.

    Attributes:
        data: `Examples.digest` of all images, in which places are.
        indices: of those held out, rising.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    indices: tuple[int, ...]

    @classmethod
    def of(cls, examples: Examples, indices: np.ndarray) -> HeldOut:
        """Those at these indices of the examples."""
        return cls(data=examples.digest(), indices=tuple(indices.tolist()))

    def __len__(self) -> int:
        return len(self.indices)

    def among(self, examples: Examples) -> np.ndarray:
        """Indices of those that are known to be among the examples, (N,): all, or none where these are others."""
        return np.array(self.indices if examples.digest() == self.data else (), np.int64)


def held_out_indices(told: HeldOut | None, asked: int | None, examples: Examples, source: str) -> np.ndarray:
    """Indices of the images that a training held out, (N,), rising.

    Args:
        told: what the network tells of that.
        asked: how many the user says they are.
        examples: of the training.
        source: the network, for messages.

    Raises:
        DataError: the examples are not those of the training.
        ValueError: there are none, others are asked for, or they cannot be so many.
    """
    if told is None:
        return split(examples, asked, "give another --held-out, or give --all")[1]
    if not len(told):
        raise ValueError(f"the training of {source} held out no images: give --all")
    if asked not in (None, len(told)):
        raise ValueError(
            f"the training of {source} held out {len(told)} images, not {asked}: leave out --held-out, or give --all"
        )
    return known_among(told, examples, source)


def known_among(told: HeldOut, examples: Examples, source: str) -> np.ndarray:
    """Indices of the images that were held out, (N,), rising.

    Raises:
        DataError: the examples are not those of the training.
    """
    if examples.digest() != told.data:
        raise DataError(
            f"{source} was trained on other images than these, or on all but those that cannot be read: "
            "give its --data and --bad-images, or --all"
        )
    return told.among(examples)
