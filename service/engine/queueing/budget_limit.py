"""How much of the network images have where their clients allow less.

As much as lets the workers keep up with what comes and run soon what waits. It is chosen when images are run, not when
they come: of a burst even those that wait already have less.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from service.engine.inference_cost import InferenceCost
from service.engine.objective import Objective

# Share of the objective within which all that wait are to be run: more come meanwhile.
_SOON = 0.2
# How much of their time workers keep for what comes by chance, where the objective is as long as one image takes; the
# more images it is long, the less.
_BY_CHANCE = 0.3
# Over how many seconds arrivals are counted; older ones fade.
_RATE_S = 0.5
# Over how many seconds the limit that is told is a mean.
_TOLD_S = 1.0


class Step(NamedTuple):
    """What images may be limited to.

    Attributes:
        share: of the network's multiply-accumulates (MACs), mean.
        gate_offset: with which they spend so much.
    """

    share: float
    gate_offset: float


WHOLE = Step(1.0, math.inf)
"""No limit."""


class BudgetLimit:
    """Chooses the limit of every batch.

    Args:
        steps: what images may be limited to, falling from `WHOLE`.
        total_macs: of the whole network.
        cost: says how long inference takes.
        objective: within what time an answer is worth most.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        total_macs: int,
        cost: InferenceCost,
        objective: Objective,
        clock: Callable[[], float],
    ) -> None:
        self._steps = steps
        self._total_macs = total_macs
        self._cost = cost
        self._objective = objective
        self._clock = clock
        self._taken, self._chosen_at = 0.0, clock()  # of the network, mean of late
        self._arrivals, self._arrived_at = 0.0, clock()  # fading

    @property
    def share(self) -> float:
        """The limit as a share of the network, mean of the last second; it rises while nothing is run."""
        return 1 - self._taken * self._kept(self._clock())

    def note_arrival(self) -> None:
        """Count an image that comes, whether it is let in or not."""
        now = self._clock()
        self._arrivals = self._arrivals * math.exp((self._arrived_at - now) / _RATE_S) + 1
        self._arrived_at = now

    def choose(self, waiting: float, workers: float, job_s: float, *, refuses: bool) -> Step:
        """The limit of the images that are run next.

        Args:
            waiting: how many others wait.
            workers: how many run images; part of one where others share them.
            job_s: seconds that a worker takes for an image now, mean; 0 where nobody knows.
            refuses: whether some images are refused so that little waits: then it is the least.
        """
        now, last = self._clock(), len(self._steps) - 1
        objective_s, whole_s = self._objective.seconds, self._image_s(self._steps[0], job_s)
        most_s = math.inf  # for an image
        if waiting:
            most_s = _SOON * objective_s * workers / waiting
        if rate := self._arrivals * math.exp((self._arrived_at - now) / _RATE_S) / _RATE_S:
            most_s = min(most_s, (1 - _BY_CHANCE * whole_s / objective_s) * workers / rate)
        fits = bisect_left(self._steps, -most_s, hi=last, key=lambda step: -self._image_s(step, job_s))
        chosen = self._steps[last if refuses else fits]
        kept = self._kept(now)
        self._taken = kept * self._taken + (1 - kept) * (1 - chosen.share)
        self._chosen_at = now
        return chosen

    def least_s(self, job_s: float) -> float:
        """Seconds that a worker would take for an image that has the least."""
        return self._image_s(self._steps[-1], job_s)

    def _image_s(self, step: Step, job_s: float) -> float:
        """As now, but for the inference."""
        now_s, then_s = map(self._cost.seconds, (self._cost.recent_macs, step.share * self._total_macs))
        return max(0.0, job_s + then_s - now_s)

    def _kept(self, now: float) -> float:
        return math.exp((self._chosen_at - now) / _TOLD_S)
