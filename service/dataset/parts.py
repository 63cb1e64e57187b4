"""The parts that have begun: what comes of their images is gathered, and each is written when it has all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.dataset.output import Output, Part
from service.dataset.reading import PartEnd, Piece
from service.dataset.rows import Columns, Rows
from service.engine.job import Outcome


class Parts:
    """Lives on an event loop; a thread writes.

    Args:
        output: where they are written.
        columns: that they have.
        sources: names of the sources.
        part_rows: most rows of a part.
        as_completed: whether rows are in the order in which they were done, and not in that of the input.
        most: that have begun and are not written.

    Attributes:
        images: of which something has come.
        open: how many parts have begun and are not written.
    """

    def __init__(
        self, output: Output, columns: Columns, sources: Sequence[str], part_rows: int, as_completed: bool, most: int
    ) -> None:
        self._output, self._columns, self._sources = output, columns, sources
        self._part_rows, self._as_completed, self._most = part_rows, as_completed, most
        self._rows: dict[Part, Rows] = {}
        self._ends: dict[Part, PartEnd] = {}
        self._thread = ThreadPoolExecutor(1, "writer")
        self._writing: set[asyncio.Future[None]] = set()
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._closed = False
        self.images = 0

    @property
    def open(self) -> int:
        return len(self._rows) + len(self._writing)

    async def begin(self, part: Part) -> None:
        """Begin a part, unless it has begun, when there is room for it.

        Raises:
            DatasetError: an earlier one could not be written.
            EngineError: what `fail` was told.
        """
        if part not in self._rows:
            await self._until_fewer(self._most)
            self._rows[part] = Rows(self._columns, self._part_rows)

    def note(self, piece: Piece, outcome: Outcome) -> None:
        """Note what came of an image; nothing any more when this is closed."""
        if self._closed:
            return
        self._rows[piece.part].note(piece.row, piece.item.name, outcome)
        self.images += 1
        self._write_if_complete(piece.part)

    def end(self, end: PartEnd) -> None:
        """Note that a part has no more images than have begun."""
        self._ends[end.part] = end
        self._write_if_complete(end.part)

    async def all_written(self) -> None:
        """Return when all parts are written, of whose images something has come.

        Raises:
            DatasetError: one could not be.
            EngineError: what `fail` was told.
        """
        await self._until_fewer(1)

    def fail(self, failure: Exception) -> None:
        """Have whoever waits for a part, which may now never be complete, wait no longer."""
        self._failure = self._failure or failure
        self._changed.set()

    def close(self) -> None:
        """Finish writing what is complete; the rest is forgotten."""
        self._closed = True
        self._thread.shutdown()

    async def _until_fewer(self, most: int) -> None:
        while self._failure is None and self.open >= most:
            self._changed.clear()
            await self._changed.wait()
        if self._failure:
            raise self._failure

    def _write_if_complete(self, part: Part) -> None:
        rows, end = self._rows[part], self._ends.get(part)
        if end is None or rows.noted < end.rows:
            return
        del self._rows[part], self._ends[part]
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, end, rows)
        self._writing.add(writing)
        writing.add_done_callback(self._note_written)

    def _write(self, end: PartEnd, rows: Rows) -> None:
        part = end.part
        table = rows.table(self._sources[part.source], part.chunk * self._part_rows, self._as_completed)
        self._output.write(part, table, rows.errors, rows.macs, last=end.last)

    def _note_written(self, writing: asyncio.Future[None]) -> None:
        self._writing.discard(writing)
        error = writing.exception()
        self._failure = self._failure or error
        self._changed.set()
