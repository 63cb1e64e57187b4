"""What is still to be done, read ahead in a thread: chunks of the sources, without those that are finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from threading import Thread
from typing import NamedTuple

from service.dataset.items import Dataset, Item, Source
from service.dataset.output import Finished, Part

# What is handed over at a time, whichever is reached first. The thread is one such batch ahead.
_MOST_ITEMS, _MOST_BYTES = 64, 8_000_000
# How long the end waits for a thread that reads, which nothing interrupts: before its next image may come gigabytes.
_PATIENCE_S = 2.0


class Piece(NamedTuple):
    """An image of a part.

    Attributes:
        part: that it belongs to.
        row: in the part.
        item: what was read.
    """

    part: Part
    row: int
    item: Item


class PartEnd(NamedTuple):
    """There are no more images in a part.

    Attributes:
        part: that ends.
        rows: that it has.
        last: whether its source ends too.
    """

    part: Part
    rows: int
    last: bool


Batch = list[Piece | PartEnd]


def pieces(dataset: Dataset, finished: Mapping[int, Finished], part_rows: int) -> Iterator[Piece | PartEnd]:
    """The images of the parts that there are not, in order; a source without images has one part, without rows.

    Args:
        dataset: to read.
        finished: parts, by the number of their source.
        part_rows: most images of a part.
    """
    for number, source in enumerate(dataset.sources):
        there = finished.get(number, Finished())
        chunk = there.next_missing(0)
        while chunk is not None:
            chunk = yield from _missing(source, number, chunk, there, part_rows)


def _missing(
    source: Source, number: int, chunk: int, there: Finished, part_rows: int
) -> Generator[Piece | PartEnd, None, int | None]:
    """The parts from one on that there are not; the number of the next such part behind those that there are."""
    items = iter(source.items(chunk * part_rows))
    item = next(items, None)
    while True:
        part, rows = Part(number, chunk), 0
        while item is not None and rows < part_rows:
            yield Piece(part, rows, item)
            rows += 1
            item = next(items, None)
        yield PartEnd(part, rows, last=item is None)
        if item is None:
            return None
        chunk += 1
        if chunk in there.chunks:
            return there.next_missing(chunk)


async def read_ahead(source: Iterator[Piece | PartEnd]) -> AsyncGenerator[Batch, None]:
    """Hand over in batches what is read in a thread, which reads the next one meanwhile; empty at the end."""

    def batch() -> Batch:
        taken: Batch = []
        size = 0
        while len(taken) < _MOST_ITEMS and size < _MOST_BYTES and (piece := next(source, None)) is not None:
            taken.append(piece)
            if isinstance(piece, Piece) and isinstance(piece.item.content, bytes):
                size += len(piece.item.content)
        return taken

    reading = _in_thread(batch)
    try:
        while taken := await asyncio.shield(reading):
            reading = _in_thread(batch)
            yield taken
    finally:
        await asyncio.wait([reading], timeout=_PATIENCE_S)
        reading.cancel()


def _in_thread(read: Callable[[], Batch]) -> asyncio.Future[Batch]:
    """What is read in a thread that ends with the process at the latest, as one of an executor would not."""
    reading: Future[Batch] = Future()
    reading.set_running_or_notify_cancel()

    def run() -> None:
        try:
            reading.set_result(read())
        except BaseException as error:
            reading.set_exception(error)

    Thread(target=run, name="reader", daemon=True).start()
    return asyncio.wrap_future(reading)
