"""Decides which job runs when and on which worker, and which job is refused.

A burst may fill the queue: to its capacity, or with as many jobs as can be run before their deadlines. If even that is
not enough, more comes in than can be done, and a long queue would only make every answer late. During such an overload
only one batch for each worker may wait, in the queue or at a worker. Other jobs are refused at once.

A worker that is given a batch is also given the next one, ahead of time, if no other worker is idle. If nothing was
queued then, it is given what comes later once it is about to be done: until then another worker may be done first, or
the job may be withdrawn.

Dear jobs, which are likely to take far longer than others, wait in a queue of their own. While other jobs come, dear
jobs have half of the workers: never more, and no less where so many of them wait. A single worker gives others as much
time after a dear job as that took.

The class reads from top to bottom: what comes in, who runs it, and the rules.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from service.engine.errors import EngineError, EngineStopped, Overloaded
from service.engine.job import PendingJob
from service.engine.objective import Objective
from service.engine.queueing.dear_share import DearShare
from service.engine.queueing.overload import Load, Overload
from service.engine.queueing.queue import JobQueue
from service.engine.queueing.service_time import ServiceTime
from service.engine.queueing.slot import Batch, Runner, Slot
from service.engine.runtimes.tuning import BatchPolicy

# How much work a worker is given ahead, in seconds, and one batch in any case. It is how late the event loop may be
# without a core having nothing to do; what a worker has, no other can run any sooner.
AHEAD_S = 0.004
# How long after a job others are expected.
_LATELY_S = 10.0


# Batches for each worker that may wait whatever the objective that was measured: with less room, a few who try again at
# once would keep all others out, and the first images, which take longer, would have others refused.
_LEAST_ROOM = 16


class Scheduler:
    """It belongs to the event loop; other threads may only look.

    Args:
        capacity: most jobs queued; more are refused.
        policy: how batches form.
        clock: seconds that never go back.
        longest_s: deadline of jobs, in seconds after they are queued; some have less.
        on_overload: told when an overload begins, and at the first job after it has ended.
        objective: within what time an answer is worth most; what would be answered later is refused.
    """

    def __init__(
        self,
        capacity: int,
        policy: BatchPolicy,
        clock: Callable[[], float],
        longest_s: float = math.inf,
        on_overload: Callable[[bool], None] = lambda _: None,
        objective: Objective | None = None,
    ) -> None:
        self.capacity = capacity
        self._objective = objective or Objective(math.inf)
        self._policy = policy
        self._clock = clock
        self._queue = JobQueue(capacity, policy.workers, longest_s, clock)
        self._dear_queue = JobQueue(capacity, max(1, policy.workers // 2), longest_s, clock)
        self._full_batches = ServiceTime()
        self._overload = Overload(clock, on_overload)
        self._closed = False
        self._came_at = self._done_at = -math.inf  # the last job, the last batch
        self._dear_share = DearShare(clock)
        self._slots: list[Slot] = []
        self._idle: list[Slot] = []  # a stack: what the last one ran is still in the caches of its core
        self._unfilled: dict[Slot, None] = {}  # a set in order of busy slots that could take more; some are idle by now
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._queue) + len(self._dear_queue)

    @property
    def workers(self) -> int:
        """How many are in service."""
        return sum([slot.in_service for slot in self._slots])

    @property
    def job_s(self) -> float:
        """Seconds that a worker takes for a job, mean; 0 before any was run."""
        return self._queue.service_time.mean_s

    @property
    def wait_s(self) -> float:
        """How long a job that came now would wait, in seconds, as far as that is known."""
        waiting = len(self._queue) + sum([slot.ahead for slot in self._slots])
        busy = 0 if self._idle else 0.5  # of each worker, half of what it runs is still to be done
        return (waiting / max(1, self.workers) + busy) * self.job_s

    @property
    def overloaded(self) -> bool:
        """Whether more comes in than can be done."""
        return self._overload.begun and self._overload.lasts(self._load)

    @property
    def overloaded_for_long(self) -> bool:
        """Whether that is no mere burst."""
        return self._overload.begun and self._overload.lasts_long(self._load)

    # What comes in.

    def require_room(self) -> None:
        """Return if a job would be accepted now.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the scheduler is closed.
        """
        self._require_room(self._queue, self._room)

    def submit(self, job: PendingJob, follows: bool = False) -> None:
        """Queue a job. It goes to an idle worker at once.

        Args:
            job: to be queued.
            follows: whether an earlier image of the same request was accepted; then only a full queue refuses it.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the scheduler is closed.
        """
        if job.dear:
            self._require_room(self._dear_queue, self._dear_queue.room)
            self._dear_queue.put(job)
        else:
            self._came_at = self._clock()
            self._require_room(self._queue, self._queue.room if follows else self._room)
            if self._overload.begun:
                self._overload.note_accepted(self._load)
            self._queue.put(job)
        self.dispatch()

    def close(self) -> None:
        """Take no more jobs, and hand out what there is without waiting for company."""
        self._closed = True
        self.dispatch()

    def fail_all(self, error: EngineError) -> None:
        """Fail everything that waits with this error."""
        self._queue.fail_all(error)
        self._dear_queue.fail_all(error)

    # Who runs it.

    def add(self, runner: Runner) -> Slot:
        """Know a worker, which is not given anything yet."""
        slot = Slot(runner)
        self._slots.append(slot)
        return slot

    def take_in(self, slot: Slot) -> None:
        """Give batches to a worker that has nothing to do, from now on."""
        slot.in_service = True
        self._rest(slot)

    def set_aside(self, slot: Slot) -> bool:
        """Give a worker nothing for now, if it has nothing to do; say whether that is so."""
        if slot not in self._idle:
            return False
        self._idle.remove(slot)
        return True

    def go_on(self, slot: Slot) -> Batch:
        """Note that a worker is done with a batch, and have it go on; return the batch."""
        done, now = slot.batches.popleft(), self._clock()
        self._note_service_time(done, now - slot.begun_at)
        if done[0].dear:
            self._dear_share.end()
        slot.begun_at = now
        if slot.batches:
            self._fill(slot)
        else:
            self._rest(slot)
        return done

    def take_out(self, slot: Slot) -> Batch:
        """Give nothing to a worker that is lost; return the batch it ran.

        What it was given ahead is the next for whoever takes some.
        """
        slot.in_service = False
        self.set_aside(slot)
        if not slot.batches:
            return []
        lost = slot.batches.popleft()
        if lost[0].dear:
            self._dear_share.end()
        while slot.batches:
            self._put_back(slot.batches.pop())
        return lost

    def dispatch(self) -> None:
        """Give out what may run now; called whenever there is more of it, or of those who run it."""
        self._dispatch_dear()
        self._dispatch_to_idle()
        self._dispatch_ahead()

    def _dispatch_dear(self) -> None:
        while self._idle and self._dear_queue and self._dear_may_run():
            slot = self._idle.pop(0)  # the one that ran longest ago: the others are warm
            batch = self._dear_queue.take(1)
            if not batch:
                self._idle.insert(0, slot)
                return
            self._dear_share.begin()
            self._begin(slot, batch)

    def _dispatch_to_idle(self) -> None:
        while self._idle and self._queue:
            if wait_s := self._company_wait_s:
                self._come_back(wait_s)
                return
            slot = self._idle.pop()
            if batch := self._next_batch():
                self._begin(slot, batch)
            else:
                self._idle.append(slot)

    def _dispatch_ahead(self) -> None:
        for slot in [*self._unfilled]:
            if self._idle or not self._queue:
                return
            if self._is_nearly_done(slot) and not self._has_enough(slot):
                self._unfilled.pop(slot, None)  # one that came meanwhile may have filled it
                self._fill(slot)

    def _begin(self, slot: Slot, batch: Batch) -> None:
        """Give a batch to a worker that has none, and what is to follow."""
        if slot.runner.give(batch):
            slot.batches.append(batch)
            slot.begun_at = self._clock()
            self._fill(slot)
        else:  # it died while it had nothing to do, for which its next batch need not pay
            if batch[0].dear:
                self._dear_share.end()
            self._put_back(batch)

    def _fill(self, slot: Slot) -> None:
        """Give batches ahead to a worker that has something to do, unless an idle one could run them sooner."""
        while not self._has_enough(slot):
            # Of a worker that always has something ahead dear jobs would never have a turn.
            held = self._idle or self._policy.max_wait_ms or (self._dear_queue and self._dear_may_run())
            batch = [] if held else self._next_batch()
            if not batch:
                self._unfilled[slot] = None
                return
            if not slot.runner.give(batch):
                self._put_back(batch)
                return
            slot.batches.append(batch)

    def _rest(self, slot: Slot) -> None:
        if slot.in_service:
            self._idle.append(slot)
            self.dispatch()

    def _next_batch(self) -> Batch:
        """A batch, without waiting for company; empty where nothing is queued that is worth running."""
        batch: Batch = []
        while self._queue and not batch:
            batch = self._queue.take(self._share)
        return batch

    def _put_back(self, batch: Batch) -> None:
        (self._dear_queue if batch[0].dear else self._queue).put_back(batch)

    def _note_service_time(self, batch: Batch, seconds: float) -> None:
        if batch[0].dear:
            self._dear_queue.service_time.note(seconds, len(batch))
            return
        self._queue.service_time.note(seconds, len(batch))
        if len(batch) == self._policy.max_batch:
            self._full_batches.note(seconds, len(batch))
        self._done_at = self._clock()

    def _come_back(self, wait_s: float) -> None:
        """Dispatch again after so many seconds, unless that is to be done sooner."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + wait_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(wait_s, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self.dispatch()

    # The rules.

    @property
    def _room(self) -> int:
        """How many jobs may be queued now: with what was given ahead, as many as are answered within the objective.

        Unless an operator has set that, it is a batch for each worker under overload.
        """
        room, ahead = self._queue.room, sum([slot.ahead for slot in self._slots])
        if (job_s := self.job_s) and self._objective.seconds < math.inf:
            least = self._policy.max_batch * (1 if self._objective.is_strict else _LEAST_ROOM)
            # Half of what each worker runs, and the job itself, take their time as well.
            each = max(least, self._objective.seconds / job_s - 1.5)
            room = min(room, math.floor(each * max(1, self.workers)) - ahead)
        if self.overloaded and not self._objective.is_strict:
            room = min(room, self._policy.workers * self._policy.max_batch - ahead)
        return room

    def _require_room(self, queue: JobQueue, room: int) -> None:
        if self._closed:
            raise EngineStopped
        try:
            queue.require_room(room)
        except Overloaded:
            if queue is self._queue:
                self._overload.note_refused(self._load)
            raise

    @property
    def _load(self) -> Load:
        waits = self._queue or any(slot.ahead for slot in self._slots)
        mean_s, full_s = self._queue.service_time.mean_s, self._full_batches.mean_s
        return Load(
            capacity=self._queue.room,
            worked_until=self._done_at if waits else math.inf,
            # Small batches take longer for a job, and under overload batches are small only because little may wait.
            service_s=min(mean_s, full_s) if full_s else mean_s,
            workers=self.workers,
        )

    @property
    def _share(self) -> int:
        """How many jobs one worker takes: all of a batch that was waited for, else its share of what is queued."""
        sharers = 1 if self._policy.max_wait_ms else self._policy.workers
        return min(self._policy.max_batch, math.ceil(len(self._queue) / sharers))

    @property
    def _company_wait_s(self) -> float:
        """How long the oldest job should still wait for company; 0 where a batch may be taken now."""
        longest_ms = self._policy.max_wait_ms
        if not longest_ms or self._closed or len(self._queue) >= min(self._policy.max_batch, self._room):
            return 0.0
        oldest = self._queue.oldest
        until = min(oldest.queued_at + longest_ms / 1000, oldest.deadline - self._queue.service_time.mean_s)
        return max(0.0, until - self._clock())

    def _is_nearly_done(self, slot: Slot) -> bool:
        """Whether a worker is about to be done with what it runs. One that is long overdue, and may hang, is not."""
        mean_s = self._queue.service_time.mean_s
        if not slot.batches or not mean_s:  # or nobody knows
            return False
        done_at = slot.begun_at + mean_s * len(slot.batches[0])
        return abs(done_at - self._clock()) <= AHEAD_S

    def _has_enough(self, slot: Slot) -> bool:
        """Whether a worker should be given nothing ahead, or no more.

        Behind a dear job nothing should wait that others could run. Under overload one batch ahead is enough, lest
        answers be late.
        """
        if slot.batches and slot.batches[0][0].dear:
            return True
        if len(slot.batches) == 1:
            return False
        mean_s = self._queue.service_time.mean_s or AHEAD_S  # as long as nobody knows
        return self.overloaded or mean_s * slot.ahead >= AHEAD_S

    def _dear_may_run(self) -> bool:
        if self._clock() - self._came_at >= _LATELY_S or (self._closed and not self._queue):
            return True  # nobody else comes
        workers = self.workers
        if wait_s := self._dear_share.wait_s(workers):
            self._come_back(wait_s)
        return not self._dear_share.is_used_up(workers)
