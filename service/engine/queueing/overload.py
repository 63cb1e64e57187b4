"""Whether more comes in than can be done: a queue that has to refuse may have met a burst, or no end of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# An overload in which nothing had to be refused for so long, and while so many jobs could be run, is over.
_CALM_S, _CALM_JOBS = 1.0, 10
# One that lasts so long is more than a burst.
_LASTING_S = 5.0


@dataclass(frozen=True)
class Load:
    """What the end of an overload depends on.

    Attributes:
        capacity: most jobs queued where there is no overload.
        worked_until: until when the workers are known to have done what there was to do: those that hang have not.
        service_s: how long a worker takes for a job; 0 where nobody knows.
        workers: how many run jobs; part of one where others share them.
    """

    capacity: int
    worked_until: float
    service_s: float
    workers: float


class Overload:
    """Begins when a full queue refuses a job, and ends when a queue like it would have nothing left to do.

    During an overload little may wait, so that some jobs are refused even of a load that could be borne: the end of
    refusals is a sign that it is over, but not one to wait for. So this simulates a queue that had accepted every job
    since, as far as it has room; the overload is over when that queue would be empty. The simulated workers never wait
    and take as long for a job as they did when the overload began, because waiting and refusals make workers seem
    slower than they are.

    Args:
        clock: seconds that never go back.
        tell: told of the beginning, and of the end at the first job after it.
    """

    def __init__(self, clock: Callable[[], float], tell: Callable[[bool], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._began_at: float | None = None
        self._refused_at = 0.0
        self._service_s = 0.0  # when it began
        self._left_s = 0.0  # to do, in seconds of one worker, at
        self._noted_at = 0.0

    @property
    def begun(self) -> bool:
        """Whether there was one when the last job came."""
        return self._began_at is not None

    def lasts(self, load: Load) -> bool:
        """Whether there is one."""
        return self.begun and not self._is_over(self._clock(), load)

    def lasts_long(self, load: Load) -> bool:
        """Whether there has been one for a while; any thread may ask."""
        now, began_at = self._clock(), self._began_at
        return began_at is not None and now - began_at >= _LASTING_S and not self._is_calm(now, load)

    def note_accepted(self, load: Load) -> None:
        """Note a job that was queued."""
        if self.begun:
            self._note(self._clock(), load)

    def note_refused(self, load: Load) -> None:
        """Note a job for which there was no room."""
        now = self._clock()
        if self.begun:
            self._note(now, load)
        if not self.begun:
            self._began_at = self._noted_at = now
            self._service_s = load.service_s
            self._left_s = self._most_s(load)
            self._tell(True)
        self._refused_at = now

    def _note(self, now: float, load: Load) -> None:
        if self._is_over(now, load):
            self._began_at = None
            self._tell(False)
        else:
            left_s = max(0.0, self._still_left_s(now, load)) + self._least_service_s(load)
            self._left_s = min(self._most_s(load), left_s)
            self._noted_at = max(self._noted_at, min(now, load.worked_until))

    def _is_over(self, now: float, load: Load) -> bool:
        known = load.service_s > 0
        return self._is_calm(now, load) or (known and self._still_left_s(now, load) <= 0)

    def _is_calm(self, now: float, load: Load) -> bool:
        return now - self._refused_at >= max(_CALM_S, _CALM_JOBS * load.service_s)

    def _still_left_s(self, now: float, load: Load) -> float:
        worked_s = max(0.0, min(now, load.worked_until) - self._noted_at)
        return self._left_s - worked_s * load.workers

    def _most_s(self, load: Load) -> float:
        return load.capacity * self._least_service_s(load)

    def _least_service_s(self, load: Load) -> float:
        return min(load.service_s, self._service_s) if self._service_s else load.service_s
