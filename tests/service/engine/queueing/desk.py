"""A scheduler whose workers run what they are given when a test says so, on a clock that only tests move."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from service.engine.job import Answer, ImageJob, Outcome, PendingJob
from service.engine.queueing.scheduler import Scheduler
from service.engine.queueing.slot import Slot
from service.engine.runtimes.tuning import BatchPolicy


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Put(PendingJob):
    """A job that remembers what it was answered; capital letters are dear."""

    def __init__(self, name: str, queued_at: float, deadline: float) -> None:
        super().__init__(name.encode(), queued_at, deadline, lambda outcome: self.outcomes.append(outcome))
        self.dear = name.isupper()
        self.outcomes: list[Outcome] = []


class Worker:
    """Takes what it is given.

    Attributes:
        given: the names of the images of every batch.
        is_there: whether it takes any.
    """

    def __init__(self) -> None:
        self.given: list[str] = []
        self.is_there = True

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        if self.is_there:
            self.given.append(names(jobs))
        return self.is_there


class Desk:
    """A scheduler and its workers.

    Args:
        idle: whether the workers have nothing to do at first; else they are given nothing until they are taken in.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        capacity: int = 100,
        workers: int = 1,
        max_batch: int = 8,
        max_wait_ms: float = 0.0,
        longest_s: float = math.inf,
        idle: bool = False,
        on_overload: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.clock = clock
        policy = BatchPolicy(workers, max_batch, max_wait_ms)
        self.scheduler = Scheduler(clock)
        self.lane = self.scheduler.open_lane(0, capacity, policy, longest_s, on_overload)
        self.other = self.lane  # of another model, where a test opens one
        self.workers = [Worker() for _ in range(workers)]
        self.slots = [self.scheduler.add(worker) for worker in self.workers]
        if idle:
            for slot in self.slots:
                self.scheduler.take_in(slot)

    @property
    def given(self) -> list[list[str]]:
        """The batches that each worker was given."""
        return [worker.given for worker in self.workers]

    @property
    def running(self) -> str:
        """What runs, in alphabetical order."""
        return "".join(sorted(name for slot in self.slots for name in (names(slot.batches[0]) if slot.batches else "")))

    def put(self, names_: str, within: float = 1000.0, follows: bool = False) -> list[Put]:
        """Submit a job for each letter."""
        jobs = [Put(name, self.clock.now, self.clock.now + within) for name in names_]
        for job in jobs:
            self.lane.submit(job, follows)
        return jobs

    def go_on(self, slot: Slot, seconds: float = 0.0) -> str:
        """Have a worker be done, after so many seconds, with what it runs."""
        self.clock.now += seconds
        done = self.scheduler.go_on(slot)
        for job in done:
            job.answered(Answer((), (), (), 0, len(done), 0.0, 0.0, 0.0))
        return names(done)

    def end(self, name: str) -> None:
        """Have the worker that runs this be done with it."""
        (slot,) = [slot for slot in self.slots if slot.batches and name in names(slot.batches[0])]
        self.go_on(slot)

    def run(self, names_: str, seconds: float) -> None:
        """Have the first worker, which alone is idle, run these as a batch for so many seconds."""
        slot = self.slots[0]
        self.put(names_)
        self.scheduler.take_in(slot)
        assert self.go_on(slot, seconds) == names_
        assert self.scheduler.set_aside(slot)

    def rest(self) -> list[str]:
        """The batches that are left, as the first worker runs them one after the other."""
        slot = self.slots[0]
        self.scheduler.take_in(slot)
        batches = []
        while slot.batches:
            batches.append(self.go_on(slot))
        self.scheduler.set_aside(slot)
        return batches


def names(jobs: Sequence[ImageJob]) -> str:
    """Of their images."""
    return "".join(job.image.decode() for job in jobs)
