"""Whether more comes in than can be done: a queue that has to refuse may have met a burst, or no end of it."""

from __future__ import annotations

import math
from collections.abc import Callable

# An overload in which nothing had to be refused for so long is over.
_CALM_S = 1.0
# One that lasts so long is more than a burst.
_LASTING_S = 5.0


class Overload:
    """Begins when a full queue refuses a request, and ends when a queue like it would have nothing left to do.

    In an overload little may wait, so that some requests are refused even of a load that could be borne: that
    nothing is refused any more is a sign of its end, but not one to wait for. So it is reckoned what would be in a
    queue that had taken everything since, as far as it has room, and workers that always had something to do.

    Args:
        capacity: of the queue.
        clock: seconds that never go back.
        seconds_each: how long the workers together take for one request at present; 0 where nobody knows.
        tell: told of the beginning, and of the end at the first request accepted after it.
    """

    def __init__(
        self,
        capacity: int,
        clock: Callable[[], float],
        seconds_each: Callable[[], float],
        tell: Callable[[bool], None],
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._seconds_each = seconds_each
        self._tell = tell
        self._told = False
        self._began_at = self._refused_at = -math.inf
        self._reckoned = 0.0  # what would be queued
        self._reckoned_at = -math.inf

    def __bool__(self) -> bool:
        """Whether there is one."""
        now = self._clock()
        return now - self._refused_at < _CALM_S and self._would_be_queued(now) > 0

    @property
    def lasting(self) -> bool:
        """Whether there is one, and has been for a while."""
        return bool(self) and self._clock() - self._began_at >= _LASTING_S

    def note_accepted(self) -> None:
        """Note a request that was queued."""
        if self:
            self._note()
        elif self._told:
            self._told = False
            self._tell(False)

    def note_refused(self) -> None:
        """Note a request for which there was no room."""
        if self:
            self._note()
        else:
            self._began_at = self._reckoned_at = self._clock()
            self._reckoned = float(self._capacity)
        self._refused_at = self._clock()
        if not self._told:
            self._told = True
            self._tell(True)

    def _note(self) -> None:
        now = self._clock()
        self._reckoned, self._reckoned_at = min(self._capacity, self._would_be_queued(now) + 1), now

    def _would_be_queued(self, now: float) -> float:
        each = self._seconds_each()
        return self._reckoned - (now - self._reckoned_at) / each if each else self._reckoned
