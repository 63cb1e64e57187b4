"""Whether more comes in than can be done: a queue that has to refuse may have met a burst, or no end of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# An overload in which nothing had to be refused for so long, and while so many requests could be run, is over.
_CALM_S, _CALM_REQUESTS = 1.0, 10
# One that lasts so long is more than a burst.
_LASTING_S = 5.0


@dataclass(frozen=True)
class Situation:
    """What an overload depends on, each told as it is when it is asked for.

    Attributes:
        capacity: most requests queued where there is no overload.
        worked_until: until when the workers are known to have done what there was to do: those that hang have not.
        seconds_each: how long a worker takes for one; 0 where nobody knows.
        workers: that there are to run them.
    """

    capacity: Callable[[], int]
    worked_until: Callable[[], float]
    seconds_each: Callable[[], float]
    workers: Callable[[], int]


class Overload:
    """Begins when a full queue refuses a request, and ends when a queue like it would have nothing left to do.

    In an overload little may wait, so that some requests are refused even of a load that could be borne: that
    nothing is refused any more is a sign of its end, but not one to wait for. So it is reckoned what would be left to
    do for a queue that had taken everything since, as far as it has room, by workers that always had something to do,
    as they had when it began: those that wait for work, or are interrupted by refusals, seem slower than they are.

    Args:
        situation: of the queue.
        clock: seconds that never go back.
        tell: told of the beginning, and of the end at the first request after it.
    """

    def __init__(self, situation: Situation, clock: Callable[[], float], tell: Callable[[bool], None]) -> None:
        self._situation = situation
        self._clock = clock
        self._tell = tell
        self._began_at: float | None = None
        self._refused_at = 0.0
        self._each_s = 0.0  # when it began
        self._left_s = 0.0  # to do, in seconds of one worker, at
        self._noted_at = 0.0

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self._began_at is not None and not self._is_over(self._clock())

    @property
    def lasting(self) -> bool:
        """Whether there has been one for a while; any thread may ask."""
        now, began_at = self._clock(), self._began_at
        return began_at is not None and now - began_at >= _LASTING_S and not self._is_calm(now)

    def note_accepted(self) -> None:
        """Note a request that was queued."""
        if self._began_at is not None:
            self._note(self._clock())

    def note_refused(self) -> None:
        """Note a request for which there was no room."""
        now = self._clock()
        if self._began_at is not None:
            self._note(now)
        if self._began_at is None:
            self._began_at = self._noted_at = now
            self._each_s = self._situation.seconds_each()
            self._left_s = self._most_s()
            self._tell(True)
        self._refused_at = now

    def _note(self, now: float) -> None:
        if self._is_over(now):
            self._began_at = None
            self._tell(False)
        else:
            left_s = max(0.0, self._still_left_s(now))
            self._left_s = min(self._most_s(), left_s + self._at_least_each_s())
            self._noted_at = max(self._noted_at, min(now, self._situation.worked_until()))

    def _is_over(self, now: float) -> bool:
        known = self._situation.seconds_each() > 0
        return self._is_calm(now) or (known and self._still_left_s(now) <= 0)

    def _is_calm(self, now: float) -> bool:
        return now - self._refused_at >= max(_CALM_S, _CALM_REQUESTS * self._situation.seconds_each())

    def _still_left_s(self, now: float) -> float:
        worked_s = max(0.0, min(now, self._situation.worked_until()) - self._noted_at)
        return self._left_s - worked_s * self._situation.workers()

    def _most_s(self) -> float:
        return self._situation.capacity() * self._at_least_each_s()

    def _at_least_each_s(self) -> float:
        each_s = self._situation.seconds_each()
        return min(each_s, self._each_s) if self._each_s else each_s
