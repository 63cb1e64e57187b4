"""What a dataset is made of: sources with images in a fixed order, and what stands for those that cannot be had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class DatasetError(ValueError):
    """The dataset cannot be classified, or not into this folder; the message says why, and what to do."""


class Unreadable(Exception):  # noqa: N818 (told of an image, as its state)
    """A file or a part of the input cannot be read.

    Attributes:
        type: for programs.
    """

    def __init__(self, message: str, type_: str = "unreadable") -> None:
        super().__init__(message)
        self.type = type_


class Item(NamedTuple):
    """One image of a source, or what stands in its place.

    Attributes:
        name: that its source knows it by; others may have the same.
        content: the image file, of one that is too large only as much as tells that; or why there is none.
        position: where the source is after it, of its `size`.
    """

    name: str
    content: bytes | Unreadable
    position: int


class Source(Protocol):
    """Images in an order that is always the same.

    Attributes:
        name: unique in its input.
        size: how much there is to read: bytes, rows or files.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def items(self, start: int) -> Iterator[Item]:
        """Its images in order, without the first `start`, whose content is not read; never more than a few in memory.

        What cannot be read is an item too, and the last one where nothing that follows can be.
        """


@dataclass(frozen=True)
class Dataset:
    """All that is to be classified.

    Attributes:
        kind: "files", "list", "tar" or "parquet".
        digest: changes when the sources do, as far as that is seen without reading them.
        sources: in order.
        images: how many there are; None where only reading would tell.
    """

    kind: str
    digest: str
    sources: Sequence[Source]
    images: int | None
