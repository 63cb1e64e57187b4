"""Notices when a process takes too long for what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchdog:
    """Watches one process with one timer, not one for every batch.

    Args:
        longest_s: that anything may take, in seconds.
        on_stuck: called when something has taken longer.
    """

    def __init__(self, longest_s: float, on_stuck: Callable[[], None]) -> None:
        self._longest_s = longest_s
        self._on_stuck = on_stuck
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Start timing a new batch."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._longest_s, self._look)

    def rest(self) -> None:
        """Stop timing: the process is idle."""
        self._since = None

    def end(self) -> None:
        """Look no more."""
        self.rest()
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return
        left_s = self._since + self._longest_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._on_stuck()
