"""Any number of files, of which a few at a time are in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from convnet_aig_client.answers import Classification
from convnet_aig_client.errors import ServiceError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAnswer:
    """The answer or the error for one file.

    Attributes:
        error: of the service, or of the file system if the file cannot be read.
    """

    path: str | os.PathLike[str]
    answer: Classification | None = None
    error: ServiceError | OSError | None = None


def ahead(begun: Iterable[T], count: int) -> Iterator[T]:
    """The items in order, so that `count` of them have been taken when the first is handed on.

    Args:
        begun: work that begins when it is taken.

    Raises:
        ValueError: the count is below 1.
    """
    if count < 1:
        raise ValueError("at least one file is classified at a time")
    waiting: deque[T] = deque()
    for each in begun:
        waiting.append(each)
        if len(waiting) == count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
