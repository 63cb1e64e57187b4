"""The jobs of one model that wait, and the rules by which more are let in.

A burst may fill the queue: to its capacity, or with as many jobs as can be run before their deadlines. If even that is
not enough, more comes in than can be done, and a long queue would only make every answer late. During such an overload
only one batch for each worker may wait, in the queue or at a worker. Other jobs are refused at once.

Where several models want the workers, each counts on its own part of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from service.engine.errors import EngineError, EngineStopped, Overloaded
from service.engine.job import PendingJob
from service.engine.objective import Objective
from service.engine.queueing.budget_limit import BudgetLimit
from service.engine.queueing.overload import Load, Overload
from service.engine.queueing.queue import JobQueue
from service.engine.queueing.service_time import ServiceTime
from service.engine.queueing.slot import Batch
from service.engine.runtimes.tuning import BatchPolicy

# Batches for each worker that may wait whatever the objective that was measured: with less room, a few who try again at
# once would keep all others out, and the first images, which take longer, would have others refused.
_LEAST_ROOM = 16
# How much one job counts in what those of late are like.
_OF_LATE = 0.02


class Workers(Protocol):
    """What a lane has to know of those who run its jobs."""

    @property
    def workers(self) -> int:
        """How many are in service."""

    @property
    def some_idle(self) -> bool:
        """Whether one has nothing to do."""

    def ahead(self, model: int) -> int:
        """How many jobs of a model they have been given that they have not begun."""

    def share(self, model: int) -> float:
        """The part of their time that a model may count on now."""

    @property
    def longest_batch_s(self) -> float:
        """Seconds that the longest batch of any model takes."""

    def dispatch(self) -> None:
        """Give out what may run now."""


class Lane:
    """It belongs to the event loop; other threads may only look.

    Args:
        model: number of the model.
        workers: run its jobs.
        capacity: most jobs queued; more are refused.
        policy: how batches form; its workers are those of all models.
        clock: seconds that never go back.
        longest_s: deadline of jobs, in seconds after they are queued; some have less.
        on_overload: told when an overload begins, and at the first job after it has ended.
        objective: within what time an answer is worth most; what would be answered later is refused.
        limit: chooses how much of the network jobs have; None where that is what was asked for.

    Attributes:
        queue: of ordinary jobs.
        dear_queue: of dear ones.
        came_at: when the last ordinary job came.
    """

    def __init__(
        self,
        model: int,
        workers: Workers,
        capacity: int,
        policy: BatchPolicy,
        clock: Callable[[], float],
        longest_s: float,
        on_overload: Callable[[bool], None],
        objective: Objective,
        limit: BudgetLimit | None = None,
    ) -> None:
        self.model = model
        self.capacity = capacity
        self.policy = policy
        self._workers = workers
        self._objective = objective
        self._limit = limit
        self._willing = 1.0  # share of the jobs of late that may have less compute than was asked for
        self._clock = clock
        self.queue = JobQueue(capacity, lambda: self.policy.workers * self._part, longest_s, clock)
        self.dear_queue = JobQueue(capacity, lambda: max(1, self.policy.workers // 2) * self._part, longest_s, clock)
        self._full_batches = ServiceTime()
        self._overload = Overload(clock, on_overload)
        self._closed = False
        self.came_at = self._done_at = -math.inf  # the last job, the last batch

    def __len__(self) -> int:
        """Jobs that wait for a worker."""
        return len(self.queue) + len(self.dear_queue)

    @property
    def _part(self) -> float:
        return self._workers.share(self.model)

    @property
    def workers(self) -> float:
        """How many workers in service it may count on."""
        return max(1, self._workers.workers) * self._part

    @property
    def job_s(self) -> float:
        """Seconds that a worker takes for a job, mean; 0 before any was run."""
        return self.queue.service_time.mean_s

    @property
    def wait_s(self) -> float:
        """How long a job that came now would wait, in seconds, as far as that is known."""
        waiting = len(self.queue) + self._workers.ahead(self.model)
        busy = 0 if self._workers.some_idle else 0.5  # of each worker, half of what it runs is still to be done
        return (waiting / self.workers + busy) * self.job_s

    @property
    def objective_s(self) -> float:
        """Within what time an answer is worth most."""
        return self._objective.seconds

    @property
    def overloaded(self) -> bool:
        """Whether more comes in than can be done."""
        return self._overload.begun and self._overload.lasts(self._load)

    @property
    def overloaded_for_long(self) -> bool:
        """Whether that is no mere burst."""
        return self._overload.begun and self._overload.lasts_long(self._load)

    def require_room(self) -> None:
        """Return if a job would be accepted now.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the lane is closed.
        """
        self._require_room(self.queue, self._room)

    def submit(self, job: PendingJob, follows: bool = False) -> None:
        """Queue a job. It goes to an idle worker at once.

        Args:
            job: to be queued.
            follows: whether an earlier image of the same request was accepted; then only a full queue refuses it.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the lane is closed.
        """
        if job.dear:
            self._require_room(self.dear_queue, self.dear_queue.room)
            self.dear_queue.put(job)
        else:
            self.came_at = self._clock()
            self._willing += _OF_LATE * (job.may_degrade - self._willing)
            self._require_room(self.queue, self.queue.room if follows else self._room)
            if self._overload.begun:
                self._overload.note_accepted(self._load)
            self.queue.put(job)
        self._workers.dispatch()

    def submit_batch(self, jobs: Sequence[PendingJob]) -> None:
        """Queue jobs that others have let in and put together, and only then hand them out."""
        self.came_at = self._clock()
        for job in jobs:
            (self.dear_queue if job.dear else self.queue).put(job)
        self._workers.dispatch()

    def count_on(self, workers: int) -> None:
        """Expect so many workers from now on."""
        self.policy = replace(self.policy, workers=workers)

    def close(self) -> None:
        """Take no more jobs, and hand out what there is without waiting for company."""
        self._closed = True
        self._workers.dispatch()

    def fail_all(self, error: EngineError) -> None:
        """Fail everything that waits with this error."""
        self.queue.fail_all(error)
        self.dear_queue.fail_all(error)

    # For those who hand out its jobs.

    @property
    def closed(self) -> bool:
        """Whether no more jobs come."""
        return self._closed

    def next_batch(self) -> Batch:
        """A batch, without waiting for company; empty where nothing is queued that is worth running.

        One worker takes all of a batch that was waited for, else its share of what is queued.
        """
        batch: Batch = []
        sharers = 1 if self.policy.max_wait_ms else self.policy.workers
        while self.queue and not batch:
            batch = self.queue.take(min(self.policy.max_batch, math.ceil(len(self.queue) / sharers)))
        return self._limited(batch)

    def next_dear(self) -> Batch:
        """A dear job alone; empty where none is queued that is worth running."""
        return self._limited(self.dear_queue.take(1))

    def _limited(self, batch: Batch) -> Batch:
        """The batch, with as much of the network as its jobs may have now."""
        if self._limit and batch:
            others = len(self.queue) + self._workers.ahead(self.model)
            refuses = self.overloaded and not self._objective.is_strict
            step = self._limit.choose(len(batch), others, self.workers, self.job_s, refuses=refuses)
            for job in batch:
                job.limit(step.gate_offset)
        return batch

    def put_back(self, batch: Batch) -> None:
        """Take back a batch that was not begun: it is the next."""
        (self.dear_queue if batch[0].dear else self.queue).put_back(batch)

    def note_service_time(self, batch: Batch, seconds: float) -> None:
        """Tell how long a worker took for a batch."""
        if batch[0].dear:
            self.dear_queue.service_time.note(seconds, len(batch))
            return
        self.queue.service_time.note(seconds, len(batch))
        if len(batch) == self.policy.max_batch:
            self._full_batches.note(seconds, len(batch))
        self._done_at = self._clock()

    @property
    def company_wait_s(self) -> float:
        """How long the oldest job should still wait for company; 0 where a batch may be taken now."""
        longest_ms = self.policy.max_wait_ms
        if not longest_ms or self._closed or len(self.queue) >= min(self.policy.max_batch, self._room):
            return 0.0
        oldest = self.queue.oldest
        until = min(oldest.queued_at + longest_ms / 1000, oldest.deadline - self.queue.service_time.mean_s)
        return max(0.0, until - self._clock())

    # The rules.

    @property
    def _room(self) -> int:
        """How many jobs may be queued now: with what was given ahead, as many as are answered within the objective.

        Unless an operator has set that, it is a batch for each worker under overload.
        """
        room, ahead = self.queue.room, self._workers.ahead(self.model)
        if (job_s := self._least_job_s) and self._objective.seconds < math.inf:
            least = self.policy.max_batch * (1 if self._objective.is_strict else _LEAST_ROOM)
            # Half of what each worker runs, and the job itself, take their time as well.
            each = max(least, self._objective.seconds / job_s - 1.5)
            room = min(room, round(each * self.workers) - ahead)
        if self.overloaded and not self._objective.is_strict:
            room = min(room, math.ceil(self.policy.workers * self._part * self._least_waiting) - ahead)
        return room

    @property
    def _least_job_s(self) -> float:
        """Seconds that a worker would take for a job if all had as little compute as they may; 0 before any."""
        if not self._limit:
            return self.job_s
        return self.job_s - self._willing * (self.job_s - self._limit.least_s(self.job_s))

    @property
    def _least_waiting(self) -> float:
        """Jobs for each worker that may wait under overload: a batch, or as long as others' batches take.

        With fewer it would have nothing to run when its turn comes, and not get its part.
        """
        if not (job_s := self.job_s):
            return self.policy.max_batch
        return max(self.policy.max_batch, self._workers.longest_batch_s / job_s)

    def _require_room(self, queue: JobQueue, room: int) -> None:
        if self._closed:
            raise EngineStopped
        try:
            queue.require_room(room)
        except Overloaded:
            if queue is self.queue:
                self._overload.note_refused(self._load)
            raise

    @property
    def _load(self) -> Load:
        waits = self.queue or self._workers.ahead(self.model)
        mean_s, full_s = self.queue.service_time.mean_s, self._full_batches.mean_s
        return Load(
            capacity=self.queue.room,
            worked_until=self._done_at if waits else math.inf,
            # Small batches take longer for a job, and under overload batches are small only because little may wait.
            service_s=min(mean_s, full_s) if full_s else mean_s,
            workers=self._workers.workers * self._part,
        )
