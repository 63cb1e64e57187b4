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
_SOON = 0.4
# How busy workers may be by what comes. An objective as long as many images bears a queue, which then tells how much is
# too much; the shorter it is in images, the more time they keep for what comes by chance.
_BUSY, _BY_CHANCE = 1.1, 0.6
# Over how many seconds arrivals are counted at least; older ones fade.
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
        self._arrivals, self._arrived_at = 0.0, clock()  # fading
        self._chosen, self._lacking, self._chosen_at = 0.0, 0.0, clock()  # images, and what they lacked; fading

    @property
    def share(self) -> float:
        """The limit as a share of the network, mean over the images of the last second; it rises while none is run."""
        kept = self._kept(self._clock())
        return 1 - self._lacking * kept / max(1.0, self._chosen * kept)

    def note_arrival(self) -> None:
        """Count an image that comes, whether it is let in or not."""
        now = self._clock()
        self._arrivals = self._arrived(now) + 1
        self._arrived_at = now

    def choose(self, images: int, others: int, workers: float, job_s: float, *, refuses: bool) -> Step:
        """The limit of the images that are run next.

        Args:
            images: that are run next.
            others: that wait.
            workers: how many run images; part of one where others share them.
            job_s: seconds that a worker takes for an image now, mean; 0 where nobody knows.
            refuses: whether some images are refused so that little waits: then it is the least.

        Returns:
            One of the steps.
        """
        now, last = self._clock(), len(self._steps) - 1
        most_s = self._most_s(images, others, workers, job_s, now)
        fits = bisect_left(self._steps, -most_s, hi=last, key=lambda step: -self._image_s(step, job_s))
        chosen = self._steps[last if refuses else fits]
        kept = self._kept(now)
        self._chosen = self._chosen * kept + images
        self._lacking = self._lacking * kept + images * (1 - chosen.share)
        self._chosen_at = now
        return chosen

    def least_s(self, job_s: float) -> float:
        """Seconds that a worker takes for an image that has the least, if it takes `job_s` now."""
        return min(job_s, self._image_s(self._steps[-1], job_s))

    def _most_s(self, images: int, others: int, workers: float, job_s: float, now: float) -> float:
        """How long an image may take."""
        objective_s = self._objective.seconds
        if objective_s == math.inf:
            return math.inf  # nothing is ever too late
        most_s = math.inf
        if images + others > 1:
            most_s = _SOON * objective_s * workers / (images + others)
        if (arrived := self._arrived(now) - images) > 0:
            busy = max(0.0, _BUSY - _BY_CHANCE * self._image_s(self._steps[0], job_s) / objective_s)
            most_s = min(most_s, busy * workers * self._rate_s / arrived)
        return most_s

    def _image_s(self, step: Step, job_s: float) -> float:
        """Seconds for an image: as now, but for the inference, which at most is in proportion to what it spends."""
        macs, now_macs = step.share * self._total_macs, self._cost.recent_macs
        if not now_macs:
            return job_s
        return max(job_s + self._cost.seconds(macs) - self._cost.seconds(now_macs), job_s * min(1.0, macs / now_macs))

    @property
    def _rate_s(self) -> float:
        return max(_RATE_S, self._objective.seconds)

    def _arrived(self, now: float) -> float:
        return self._arrivals * math.exp((self._arrived_at - now) / self._rate_s)

    def _kept(self, now: float) -> float:
        return math.exp((self._chosen_at - now) / _TOLD_S)
