"""Which of the requests that wait for a device run together next.

Two batches can be on their way at a time: one runs while the next is copied. Nothing waits for company where the device
has nothing to do. Where it has, company costs no time: what waits goes as soon as there is as much of it as runs, or
when the device has come to it. So batches grow with the load, and a full device gets full batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

MOST_ON_THEIR_WAY = 2


@dataclass(frozen=True, eq=False)
class Wanted:
    """Images that one worker wants run.

    Attributes:
        model: of them all; others do not run with them.
        are_pixels: whether they are pixels, which do not run with tensors.
        rows: images, how many.
        largest: most images in a batch of that model.
    """

    model: object
    are_pixels: bool
    rows: int
    largest: int


Some = TypeVar("Some", bound=Wanted)


def next_batch(waiting: Sequence[Some], on_their_way: Sequence[int]) -> list[Some]:
    """What runs next; nothing where more should come first.

    Args:
        waiting: in the order in which they came.
        on_their_way: images of each batch that is being copied or run.
    """
    if not waiting or len(on_their_way) == MOST_ON_THEIR_WAY:
        return []
    first = waiting[0]
    batch, rows, full = [first], first.rows, first.rows >= first.largest
    for wanted in waiting[1:]:
        if (wanted.model, wanted.are_pixels) != (first.model, first.are_pixels):
            continue
        if rows + wanted.rows > first.largest:
            full = True
            break
        batch.append(wanted)
        rows += wanted.rows
    if full or rows >= sum(on_their_way):
        return batch
    return []
