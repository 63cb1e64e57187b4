"""A bounded queue, first in, first out, which leaves out jobs that nobody waits for any more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from service.engine.errors import DeadlineExceeded, EngineError, Overloaded
from service.engine.job import PendingJob
from service.engine.queueing.service_time import ServiceTime


class JobQueue:
    """It belongs to the event loop; other threads may only look.

    Args:
        capacity: most jobs queued.
        workers: tells how many take from it now.
        longest_s: deadline of jobs, in seconds after they are queued; some have less.
        clock: seconds that never go back.

    Attributes:
        service_time: of the jobs that came from this queue.
    """

    def __init__(
        self, capacity: int, workers: Callable[[], float], longest_s: float, clock: Callable[[], float]
    ) -> None:
        self.capacity = capacity
        self.service_time = ServiceTime()
        self._workers = workers
        self._longest_s = longest_s
        self._clock = clock
        self._jobs: deque[PendingJob] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def oldest(self) -> PendingJob:
        """The job that is next."""
        return self._jobs[0]

    @property
    def room(self) -> int:
        """How many jobs may be queued: no more than can be run before their deadlines."""
        mean_s = self.service_time.mean_s
        if not mean_s or self._longest_s == math.inf:
            return self.capacity
        # Those that run, and the job itself, take their time as well.
        in_time = math.floor((self._longest_s / mean_s - 2) * self._workers())
        return max(1, min(self.capacity, in_time))

    def require_room(self, room: int) -> None:
        """Return if another job fits into a queue of at most so many.

        Raises:
            Overloaded: the queue is full.
        """
        if len(self._jobs) >= room:
            # Withdrawn jobs must not keep others out; looking for them is left to the moment it matters.
            self._jobs = deque(job for job in self._jobs if not job.withdrawn)
        if len(self._jobs) >= room:
            raise Overloaded(len(self._jobs) * self.service_time.mean_s / self._workers())

    def put(self, job: PendingJob) -> None:
        """Queue a job, for which there is room."""
        self._jobs.append(job)

    def put_back(self, jobs: Sequence[PendingJob]) -> None:
        """Put jobs that were taken but not begun back at the front."""
        for job in reversed(jobs):
            if not job.withdrawn:
                job.given = False
                self._jobs.appendleft(job)

    def take(self, most: int) -> list[PendingJob]:
        """The next jobs, at most so many; empty where nothing is queued that is worth running.

        Withdrawn jobs are dropped, and those past their deadline fail with DeadlineExceeded, before they cost any
        compute.
        """
        taken: list[PendingJob] = []
        now = self._clock()
        while self._jobs and len(taken) < most:
            job = self._jobs.popleft()
            if job.withdrawn:
                continue
            if job.deadline <= now:
                job.answered(DeadlineExceeded())
            else:
                job.given = True
                taken.append(job)
        return taken

    def fail_all(self, error: EngineError) -> None:
        """Fail everything that is queued with this error."""
        while self._jobs:
            job = self._jobs.popleft()
            if not job.withdrawn:
                job.answered(error)
