"""The engine on a clock that jumps from event to event: minutes of load take seconds."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from statistics import quantiles

from service.engine.engine import Engine
from service.engine.errors import Overloaded
from service.engine.job import Answer, Answered, ImageJob, Outcome
from service.engine.queueing.budget_limit import WHOLE, Step
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from tests.runtimes import echo_manifest
from tests.service.engine.looped import echo_pool, engine_on


@dataclass
class Tally:
    """What became of the requests of a while.

    Attributes:
        refused: that there was no room for.
        late: that were not answered before their deadlines.
        latencies_s: of those that were.
        shares: of the network that those had which were answered.
    """

    refused: int = 0
    late: int = 0
    latencies_s: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def within(self, objective_s: float) -> int:
        """How many were answered within this time."""
        return sum(latency_s <= objective_s for latency_s in self.latencies_s)

    @property
    def answered(self) -> int:
        return len(self.latencies_s)

    @property
    def p99_s(self) -> float:
        return quantiles(self.latencies_s, n=100)[-1]


class _Worker:
    """Takes batch after batch, each for as long as it is told to. It is started and checked in no time."""

    pid: int | None = None
    alive = True

    def __init__(self, simulation: Simulation) -> None:
        self.hangs = self.connected = False
        self._simulation = simulation
        self._has: deque[Sequence[ImageJob]] = deque()

    def start(self) -> None:
        pass

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:
        self._answered, self._lost = answered, lost
        self.connected = True

    def check(self, model: int, batch_size: int) -> bool:  # noqa: ARG002 (any will do)
        asyncio.get_running_loop().call_soon(self._answered, [])
        return True

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        self._has.append(jobs)
        if len(self._has) == 1:
            self.go_on()
        return True

    def abort(self) -> None:
        self.hangs = True
        self._lost("died")

    def disconnect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def go_on(self) -> None:
        if self._has and not self.hangs:
            self.takes_s = self._simulation.batch_s_of[self._has[0][0].model](len(self._has[0])) * _part(self._has[0])
            self.began_at = self._simulation.now
            self._simulation.at(self.takes_s, self._end)

    def _end(self) -> None:
        if self.hangs:
            return
        jobs, took_s, began_at = self._has.popleft(), self.takes_s, self.began_at
        self.go_on()
        self._answered(
            [Answer((1.0,), (), (), _macs(job), len(jobs), 0.0, began_at - job.queued_at, took_s) for job in jobs]
        )


# What of an image's time does not depend on its budget.
_ALWAYS = 0.2


def _part(jobs: Sequence[ImageJob]) -> float:
    """What images take, of what they would with the whole network; their gate offset stands for their share of it."""
    return sum(_ALWAYS + (1 - _ALWAYS) * (1 + job.gate_offset) for job in jobs) / len(jobs)


def _macs(job: ImageJob) -> int:
    return round((1 + job.gate_offset) * echo_manifest().total_macs)


class Simulation:
    """A running engine, its workers, and clients who come at random.

    Args:
        batch_s: how long a worker takes for a batch of so many, in seconds.
        other_batch_s: the same of a second model, if there is one.
        workers, max_batch: of the policy, with which nobody waits for company.
        capacity: of the queue.
        deadline_s: of all requests, in seconds.
        objective_s: see `Engine`.
        budgets: shares of the network that images may be limited to, falling from 1.

    Attributes:
        now: the time, in seconds.
        tally, other_tally: of the requests to each model, since they were last replaced.
    """

    def __init__(
        self,
        batch_s: Callable[[int], float],
        workers: int = 2,
        max_batch: int = 1,
        capacity: int = 128,
        deadline_s: float = 10.0,
        objective_s: float | None = math.inf,
        budgets: Sequence[float] = (1.0,),
        other_batch_s: Callable[[int], float] | None = None,
    ) -> None:
        self.batch_s_of = [batch_s, other_batch_s or batch_s]
        self.now = 0.0
        self.tally, self.other_tally = Tally(), Tally()
        self.workers = [_Worker(self) for _ in range(workers)]
        self._deadline_s = deadline_s
        self._random = Random(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        tuning = Tuning(BatchPolicy(workers, max_batch, max_wait_ms=0))
        self.engine = engine_on(
            echo_pool(tuning, self.workers),
            capacity,
            deadline_s,
            clock=lambda: self.now,
            objective_s=objective_s,
            steps=[WHOLE, *(Step(share, share - 1) for share in budgets[1:])],
        )
        self.engines = [self.engine]
        if other_batch_s:
            model = replace(self.engine.model, number=1)
            self.engines.append(Engine(self.engine.crew, model, capacity, deadline_s, objective_s=objective_s))
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())

    def close(self) -> None:
        """Stop the engine and its loop, which stands still but for its start and stop."""
        self._loop.run_until_complete(self.engine.crew.stop(0))
        self._loop.close()

    async def _start(self) -> None:
        await self.engine.crew.start()
        while not all(worker.connected for worker in self.workers):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)  # and taken in

    def at(self, delay_s: float, do: Callable[[], None]) -> None:
        """Have something happen, so many seconds from now."""
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), do))

    def run(self, seconds: float) -> Tally:
        """Let time pass, and tell what became of the requests to the first model that were offered meanwhile."""
        self.tally, self.other_tally = Tally(), Tally()
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, do = heapq.heappop(self._events)
            do()
        self.now = end
        return self.tally

    def offer(self, per_s: float, seconds: float, model: int = 0) -> None:
        """Have requests come at random for so long from now on."""
        end = self.now + seconds

        def come() -> None:
            if self.now < end:
                self.ask(model)
                self.at(self._random.expovariate(per_s), come)

        self.at(self._random.expovariate(per_s), come)

    def ask(self, model: int = 0, may_degrade: bool = True) -> None:
        """Offer one request; its client gives up at the deadline."""
        tally, asked_at, engine = (self.tally, self.other_tally)[model], self.now, self.engines[model]

        def answered(outcome: Outcome) -> None:
            if self.now - asked_at > self._deadline_s or not isinstance(outcome, Answer):
                tally.late += 1
            else:
                tally.latencies_s.append(self.now - asked_at)
                tally.shares.append(1 + job.gate_offset)

        try:
            engine.require_room()  # as is asked when its head is there
            job = engine.submit(b"", self._deadline_s, answered, may_degrade=may_degrade)
        except Overloaded:
            tally.refused += 1
