"""How much of the network an image may have now: less while more comes in than can be answered in time.

The limit falls as soon as images wait for a good part of the objective, or are refused, to the largest step at which
the workers keep up with what arrives and work off what waits. It rises a step at a time, each time when nothing has
waited for a while and the workers would keep up with the next step too, so that it does not go up and down. While
nothing comes it rises as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Share of the objective that a wait has to have for the limit to fall.
_LONG = 0.3
# How busy the workers may be by what arrives: when the limit falls, less the more of the objective it is that waits
# already; and at the step above when it rises.
_BUSY, _WORKING_OFF, _BUSY_ABOVE = 1.0, 0.2, 0.9
# Seconds between two steps up, and between two falls: the first has to show in the queue.
_RISE_S, _FALL_S = 0.7, 0.05
# Over how many seconds arrivals are counted; older ones fade.
_RATE_S = 1.0


@dataclass(frozen=True)
class Pressure:
    """What the limit depends on.

    Attributes:
        wait_s: how long what comes now would wait.
        overloaded: whether some are refused.
        objective_s: within what time an answer is worth most.
        workers: how many run images; part of one where others share them.
        image_s: how long a worker takes for an image of a share of the network, in seconds; 0 where nobody knows.
    """

    wait_s: float
    overloaded: bool
    objective_s: float
    workers: float
    image_s: Callable[[float], float]


class BudgetLimit:
    """A share of the network's multiply-accumulates, mean.

    Args:
        steps: that it may have, falling; the first is no limit.
        clock: seconds that never go back.
    """

    def __init__(self, steps: Sequence[float], clock: Callable[[], float]) -> None:
        self._steps = steps
        self._clock = clock
        self._at = 0
        self._arrivals = 0.0  # fading
        self._counted_at = self._moved_at = self._calm_since = clock()

    @property
    def share(self) -> float:
        """The limit. While nothing comes it rises all the same."""
        return self._steps[self._after_silence(self._clock())]

    @property
    def is_fixed(self) -> bool:
        """Whether it never moves."""
        return len(self._steps) == 1

    def note_arrival(self, pressure: Pressure) -> None:
        """Count an image that comes, whether it is let in or not, and move the limit where that is due."""
        now = self._clock()
        self._at = self._after_silence(now)
        self._arrivals = self._arrivals * math.exp((self._counted_at - now) / _RATE_S) + 1
        self._counted_at = now
        if pressure.overloaded or pressure.wait_s > _LONG * pressure.objective_s:
            self._calm_since = now
            if now - self._moved_at >= _FALL_S:
                self._fall(now, pressure)
        elif min(now - self._calm_since, now - self._moved_at) >= _RISE_S:
            self._rise(now, pressure)

    def _after_silence(self, now: float) -> int:
        """Where the limit is if nothing has come since the last arrival."""
        return max(0, self._at - int((now - max(self._counted_at, self._moved_at)) / _RISE_S))

    def _fall(self, now: float, pressure: Pressure) -> None:
        waits = min(1.0, pressure.wait_s / pressure.objective_s)
        most = _BUSY - _WORKING_OFF * waits
        from_here = range(self._at, len(self._steps))
        found = next((at for at in from_here if self._busy(at, pressure) <= most), len(self._steps) - 1)
        if found != self._at:
            self._at, self._moved_at = found, now

    def _rise(self, now: float, pressure: Pressure) -> None:
        if self._at and self._busy(self._at - 1, pressure) <= _BUSY_ABOVE:
            self._at, self._moved_at = self._at - 1, now

    def _busy(self, at: int, pressure: Pressure) -> float:
        """The share of their time that all workers would need at a step for what arrives."""
        rate = self._arrivals / _RATE_S
        return rate * pressure.image_s(self._steps[at]) / max(1, pressure.workers)
