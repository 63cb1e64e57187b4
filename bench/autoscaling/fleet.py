"""Replicas of the service, second by second: what they answer, with how much compute, and what they refuse.

Images are a fluid, spread evenly over the replicas that are ready. What would wait for longer than the objective is
refused. A service with several budgets has the largest of them with which it keeps up, as
`service.engine.queueing.budget_limit` has in the mean of the images; near its capacity that limits some more by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_ALMOST = 1e-9


@dataclass(frozen=True)
class Replica:
    """One replica.

    Attributes:
        rates: images a second at each budget, rising; the first with all the compute that clients ask for.
        workers: that run images.
        start_s: from its creation until it is ready, in seconds.
        objective_s: how long an image may wait, in seconds.
    """

    rates: tuple[float, ...]
    workers: int = 2
    start_s: float = 30.0
    objective_s: float = 0.2


@dataclass(frozen=True)
class Second:
    """What happened in one second.

    Attributes:
        now_s: when it began.
        arrived, answered, refused, degraded: images; degraded ones are answered with less compute than was asked for.
        busy: share of their time that the workers of replicas that are ready were busy.
        ongoing: images that were running or waiting at its end.
        replicas, ready: all that are paid for, and those of them that answer.
    """

    now_s: int
    arrived: float
    answered: float
    refused: float
    degraded: float
    busy: float
    ongoing: float
    replicas: int
    ready: int


@dataclass
class Fleet:
    """Replicas, `ready` of them from the start."""

    replica: Replica
    ready: int
    _starting: list[float] = field(default_factory=list)  # when each will be ready
    _waiting: float = 0.0

    @property
    def size(self) -> int:
        """All replicas that are paid for."""
        return self.ready + len(self._starting)

    def scale(self, replicas: int, now_s: float) -> None:
        """Create or remove replicas; those that are not ready go first, the newest of them before the others."""
        for _ in range(replicas - self.size):
            self._starting.append(now_s + self.replica.start_s)
        while self.size > replicas and self._starting:
            self._starting.pop()
        self.ready -= max(0, self.size - replicas)

    def serve(self, arrived: float, now_s: int) -> Second:
        """Let one second pass."""
        self.ready += sum(ready_at <= now_s for ready_at in self._starting)
        self._starting = [ready_at for ready_at in self._starting if ready_at > now_s]
        offered, rates = self._waiting + arrived, self.replica.rates
        rate = next((rate for rate in rates if offered <= self.ready * rate + _ALMOST), rates[-1])
        capacity = self.ready * rate
        answered = min(offered, capacity)
        refused = max(0.0, offered - answered - self.replica.objective_s * capacity)
        self._waiting = offered - answered - refused
        busy = answered / capacity if capacity else 0.0
        degraded = answered if rate > rates[0] else 0.0
        ongoing = self._ongoing(busy, capacity)
        return Second(now_s, arrived, answered, refused, degraded, busy, ongoing, self.size, self.ready)

    def _ongoing(self, busy: float, capacity: float) -> float:
        """Images running, and waiting for chance or for want of capacity.

        The former are those of a queue with as many servers as a replica has workers, random arrivals and equal times:
        half of Sakasegawa's approximation (1977), `busy ** sqrt(2 * (workers + 1)) / (1 - busy)`.
        """
        room = self.replica.objective_s * capacity
        exponent = math.sqrt(2 * (self.replica.workers + 1))
        by_chance = self.ready * 0.5 * busy**exponent / (1 - busy) if busy < 1 - _ALMOST else room
        return self.ready * self.replica.workers * busy + min(room, max(self._waiting, by_chance))
