"""A day of one service under one autoscaler, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bench.autoscaling.fleet import Fleet, Replica, Second
from bench.autoscaling.load import Day

_HOUR_S = 3_600


class Autoscaler(Protocol):
    """Decides after every second how many replicas there shall be."""

    def decide(self, second: Second) -> int:
        """The number; that of `second` if nothing is to change."""


class Fixed:
    """The number of replicas that somebody has set."""

    def decide(self, second: Second) -> int:
        """The same as there are."""
        return second.replicas


@dataclass(frozen=True)
class Outcome:
    """Of a day.

    Attributes:
        images: that came.
        refused, degraded: shares of them; what is refused would have been late.
        burst_refused: share of those that came in the burst.
        replica_hours: from the creation to the end of each replica.
        ideal_replica_hours: of the fewest that could answer in full what is expected in each second, ready at once.
        full_after_s: from the start of the burst until those that are ready could answer it in full; None if never.
        refusing_s: from the start of the burst until the last image is refused; 0 where none is.
        capacity: images a second that those that are ready answer in full, (length_s,).
    """

    images: int
    refused: float
    degraded: float
    burst_refused: float
    replica_hours: float
    ideal_replica_hours: float
    full_after_s: int | None
    refusing_s: int
    capacity: npt.NDArray[np.float64]


def simulate(day: Day, seed: int, replica: Replica, replicas: int, autoscaler: Autoscaler) -> Outcome:
    """Let the day pass, beginning with so many replicas that are ready."""
    fleet = Fleet(replica, replicas)
    seconds = []
    for now_s, arrived in enumerate(day.arrivals(seed).tolist()):
        second = fleet.serve(arrived, now_s)
        seconds.append(second)
        wanted = autoscaler.decide(second)
        if wanted != second.replicas:
            fleet.scale(wanted, now_s)
    return _outcome(day, replica.rates[0], seconds)


def replicas_for(rate: float, replica: Replica, target: float) -> int:
    """How many keep the workers busy for that share of their time, with all the compute that is asked for."""
    return math.ceil(rate / (target * replica.rates[0]))


def _outcome(day: Day, rate: float, seconds: list[Second]) -> Outcome:
    def each(value: Callable[[Second], float]) -> npt.NDArray[np.float64]:
        return np.array([value(second) for second in seconds], np.float64)

    expected = day.rates()
    burst = slice(day.burst_at_s, day.burst_at_s + day.burst_s)
    arrived, refused = each(lambda second: second.arrived), each(lambda second: second.refused)
    capacity = rate * each(lambda second: second.ready)
    enough = np.flatnonzero(capacity[burst] >= expected[burst])
    refusing = np.flatnonzero(refused[burst] > 0)
    return Outcome(
        images=int(arrived.sum()),
        refused=refused.sum() / arrived.sum(),
        degraded=each(lambda second: second.degraded).sum() / arrived.sum(),
        burst_refused=refused[burst].sum() / max(1.0, arrived[burst].sum()),
        replica_hours=each(lambda second: second.replicas).sum() / _HOUR_S,
        ideal_replica_hours=float(np.ceil(expected / rate).sum()) / _HOUR_S,
        full_after_s=int(enough[0]) if enough.size else None,
        refusing_s=int(refusing[-1]) + 1 if refusing.size else 0,
        capacity=capacity,
    )
