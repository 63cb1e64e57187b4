"""Images that cannot be read: found before any other is used, named, and left out or fatal, as the user asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from tqdm import tqdm

from artifact.preprocessing import Preprocessing
from models.examples import DataError, Examples

BadImages = Literal["stop", "skip"]
"""What comes of images that cannot be read."""

_MOST_NAMED = 20
# Images a thread decodes at a time: to hand over each alone would cost memory where there are millions.
_BLOCK = 64


def readable(examples: Examples, preprocessing: Preprocessing, bad_images: BadImages) -> Examples:
    """The examples to use: all of them, or with "skip" those that can be read, for which each is decoded once.

    With "stop" nothing is decoded here: `Examples` raises when it comes to an image that cannot be read.

    Raises:
        DataError: a class has no image that can be read.
    """
    if bad_images == "stop":
        return examples
    return examples.without(find_bad(examples, lambda index: examples.fitted(index, preprocessing), bad_images))


def find_bad(examples: Examples, decode: Callable[[int], object], bad_images: BadImages) -> list[int]:
    """Call `decode` once with every index, on several threads, and return those it fails for, after naming them.

    Raises:
        DataError: with "stop", that of the first image that cannot be read.
    """

    def bad_among(block: range) -> list[int]:
        return [index for index in block if not _decodes(decode, index, bad_images)]

    blocks = [range(start, min(start + _BLOCK, len(examples))) for start in range(0, len(examples), _BLOCK)]
    bad: list[int] = []
    pool = ThreadPoolExecutor(thread_name_prefix="decode")  # Pillow decodes outside the interpreter lock
    try:
        with tqdm(desc="decoding", total=len(examples), unit="image", leave=False, disable=None) as bar:
            for block, found in zip(blocks, pool.map(bad_among, blocks), strict=True):
                bad += found
                bar.update(len(block))
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure, or an interrupt, the rest need not be done
    if bad:
        _name(examples, bad)
    return bad


def _decodes(decode: Callable[[int], object], index: int, bad_images: BadImages) -> bool:
    try:
        decode(index)
    except DataError:
        if bad_images == "stop":
            raise
        return False
    return True


def _name(examples: Examples, bad: list[int]) -> None:
    print(f"note: {len(bad)} of {len(examples)} images cannot be read and are left out:", file=sys.stderr)
    for index in bad[:_MOST_NAMED]:
        print(f"  {examples.path(index)}", file=sys.stderr)
    if len(bad) > _MOST_NAMED:
        print(f"  and {len(bad) - _MOST_NAMED} more", file=sys.stderr)
