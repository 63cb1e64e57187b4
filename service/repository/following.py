"""What is done without being asked: models are loaded at the start, a folder is followed, damaged models withdrawn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

# How often it is asked whether the system watches the folder, in milliseconds, and when that is tried again where it
# does not, in seconds.
_WATCHED_MS, _RETRY_S = 1000, 10.0

LoadAll = Callable[[Sequence[tuple[str, str]] | None], Awaitable[None]]


class Following:
    """It lives on the event loop, from `begin` to `end`.

    Args:
        path: of the folder.
        load_all: serves what is in the folder, or only some versions of it.
        withdraw_damaged: serves no more what workers cannot open.

    Attributes:
        begun: set when what is in the folder at first is served, as far as it can be.
    """

    def __init__(self, path: Path, load_all: LoadAll, withdraw_damaged: Callable[[], Awaitable[None]]) -> None:
        self._path = path
        self._load_all, self._withdraw_damaged = load_all, withdraw_damaged
        self._tasks: list[asyncio.Task[None]] = []
        self._withdrawing: asyncio.Task[None] | None = None
        self.begun = asyncio.Event()

    def begin(self, first: Sequence[tuple[str, str]] | None, watched: bool) -> None:
        """Load these versions, or all there are, and go on with what changes if the folder is watched."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._follow(first, watched)))

    def note_failed_start(self) -> None:
        """Look whether a worker cannot be started because of a model."""
        if self._withdrawing is None or self._withdrawing.done():
            done = self._logged(self._withdraw_damaged, "models that workers cannot open could not be withdrawn")
            self._withdrawing = asyncio.get_running_loop().create_task(done)

    async def end(self) -> None:
        """Do nothing any more."""
        for task in (*self._tasks, *filter(None, [self._withdrawing])):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self, first: Sequence[tuple[str, str]] | None, watched: bool) -> None:
        await self._look(first)
        self.begun.set()
        while watched:
            await self._logged(self._watch, f"the models cannot be followed; tried again in {_RETRY_S:g} seconds")
            await asyncio.sleep(_RETRY_S)

    async def _watch(self) -> None:
        from watchfiles import awatch  # its package need not be installed

        look = True  # for what has changed before the folder was watched
        async for changes in awatch(self._path, rust_timeout=_WATCHED_MS, yield_on_timeout=True):
            if look or changes:
                await self._look()
            look = False

    async def _look(self, only: Sequence[tuple[str, str]] | None = None) -> None:
        await self._logged(lambda: self._load_all(only), "the models could not be looked through")

    async def _logged(self, work: Callable[[], Awaitable[None]], failed: str) -> None:
        """Do something of which an error is not to be the end."""
        try:
            await work()
        except Exception:
            _log.exception(failed)
