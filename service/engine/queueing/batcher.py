"""A bounded queue that hands out its requests in batches, leaving out those nobody waits for any more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic

from service.engine.errors import DeadlineExceeded, EngineError, EngineStopped, Overloaded
from service.engine.job import AnswerT, PayloadT, PendingRequest
from service.engine.queueing.overload import Overload, Situation
from service.engine.queueing.speed import Speed
from service.engine.runtimes.tuning import BatchPolicy

# How long after a request others are expected.
_LATELY_S = 10.0


class Batcher(Generic[PayloadT, AnswerT]):
    """First in, first out. It belongs to the event loop; other threads may only look.

    A burst may fill the queue to its capacity, or with as much as can be run before its deadlines. When even that
    overflows, more is coming in than can be done, and a long queue would only make every answer late: as long as that
    overload lasts, only as much may wait, here or at a worker, as lets every worker go on at once when it is done, and
    what does not fit is refused at once.

    Args:
        capacity: most requests queued; more are refused.
        policy: how batches form.
        clock: seconds that never go back.
        longest_s: deadline of requests, in seconds after they are queued; some have less.
        given_ahead: how many requests workers have been given that they have not begun.
        workers: how many there are at present.
        on_overload: told when an overload begins, and at the first request after it has ended.

    Attributes:
        overload: whether there is one.
    """

    def __init__(
        self,
        capacity: int,
        policy: BatchPolicy,
        clock: Callable[[], float],
        longest_s: float = math.inf,
        given_ahead: Callable[[], int] = lambda: 0,
        workers: Callable[[], int] | None = None,
        on_overload: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.capacity = capacity
        self.policy = policy
        self._clock = clock
        self._longest_s = longest_s
        self._given_ahead = given_ahead
        self._speed, self._full_speed = Speed(), Speed()  # of all batches, and of full ones
        self._done_at = -math.inf  # with the last of them
        situation = Situation(
            capacity=lambda: self._capacity_in_time,
            worked_until=lambda: self._done_at if self._queue or given_ahead() else math.inf,
            seconds_each=lambda: self._best_seconds_each,
            workers=workers or (lambda: policy.workers),
        )
        self.overload = Overload(situation, clock, on_overload)
        self._queue: deque[PendingRequest[PayloadT, AnswerT]] = deque()
        self._closed = False
        self._came_at = -math.inf

    def came_lately(self, now: float) -> bool:
        """Whether requests come at present."""
        return now - self._came_at < _LATELY_S

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def seconds_each(self) -> float:
        """Running mean of the seconds a worker spends on one request; 0 before any was run."""
        return self._speed.seconds_each

    def put(self, request: PendingRequest[PayloadT, AnswerT], follows: bool = False) -> None:
        """Queue a request.

        Args:
            request: to be queued.
            follows: whether it belongs to one that was accepted, and is refused only where the queue is full.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the batcher is closed.
        """
        self._came_at = self._clock()
        self._require_room(self._capacity_in_time if follows else self._room)
        self.overload.note_accepted()
        self._queue.append(request)

    def put_back(self, requests: Sequence[PendingRequest[PayloadT, AnswerT]]) -> None:
        """Have what was taken, and never begun, be the next that is taken."""
        for request in reversed(requests):
            if not request.withdrawn:
                request.given = False
                self._queue.appendleft(request)

    def require_room(self) -> None:
        """Return where a request would be queued now.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the batcher is closed.
        """
        self._require_room(self._room)

    @property
    def wait_s(self) -> float:
        """How long what is queued should still wait for company; 0 where a batch may be taken now."""
        longest_ms = self.policy.max_wait_ms
        if not longest_ms or self._closed or not 0 < len(self._queue) < min(self.policy.max_batch, self._room):
            return 0.0
        oldest = self._queue[0]
        until = min(oldest.queued_at + longest_ms / 1000, oldest.deadline - self.seconds_each)
        return max(0.0, until - self._clock())

    def take(self) -> list[PendingRequest[PayloadT, AnswerT]]:
        """A batch, without waiting for company; empty where nothing is queued that is worth running.

        Withdrawn requests are dropped, and those past their deadline fail with DeadlineExceeded, before they cost any
        compute.
        """
        batch: list[PendingRequest[PayloadT, AnswerT]] = []
        while self._queue and not batch:
            self._fill(batch, self._fair_share())
        return batch

    def take_ahead(self) -> list[PendingRequest[PayloadT, AnswerT]]:
        """A batch for a worker that has one already; empty where batches are waited for."""
        return [] if self.policy.max_wait_ms else self.take()

    def note_speed(self, seconds: float, requests: int) -> None:
        """Tell how long a worker took for a batch."""
        self._speed.note(seconds, requests)
        if requests == self.policy.max_batch:
            self._full_speed.note(seconds, requests)
        self._done_at = self._clock()

    def close(self) -> None:
        """Refuse new requests; what is queued is still handed out."""
        self._closed = True

    def drop_all(self, error: EngineError) -> None:
        """Fail everything still queued with this error."""
        while self._queue:
            request = self._queue.popleft()
            if not request.withdrawn:
                request.answered(error)

    @property
    def _best_seconds_each(self) -> float:
        """The same in full batches, if that is less: those that run as long as little may wait tell of no others."""
        each, in_full_batches = self._speed.seconds_each, self._full_speed.seconds_each
        return min(each, in_full_batches) if in_full_batches else each

    @property
    def _capacity_in_time(self) -> int:
        """How many may be queued as long as there is no overload: no more than can be run before their deadlines."""
        each = self.seconds_each
        if not each or self._longest_s == math.inf:
            return self.capacity
        # Those that run, and the one itself, take their time as well.
        in_time = math.floor((self._longest_s / each - 2) * self.policy.workers)
        return max(1, min(self.capacity, in_time))

    @property
    def _room(self) -> int:
        """How many may be queued now: under overload a batch for each worker, with what they have been given ahead."""
        if not self.overload:
            return self._capacity_in_time
        return min(self._capacity_in_time, self.policy.workers * self.policy.max_batch - self._given_ahead())

    def _require_room(self, room: int) -> None:
        if self._closed:
            raise EngineStopped
        if len(self._queue) >= room:
            # Withdrawn requests must not keep others out; looking for them is left to the moment it matters.
            self._queue = deque(waiting for waiting in self._queue if not waiting.withdrawn)
        if len(self._queue) >= room:
            self.overload.note_refused()
            raise Overloaded(len(self._queue) * self.seconds_each / self.policy.workers)

    def _fair_share(self) -> int:
        """How many requests one worker takes: all of a batch that was waited for, else what is due to one of many."""
        sharers = 1 if self.policy.max_wait_ms else self.policy.workers
        return min(self.policy.max_batch, math.ceil(len(self._queue) / sharers))

    def _fill(self, batch: list[PendingRequest[PayloadT, AnswerT]], wanted: int) -> None:
        now = self._clock()
        while self._queue and len(batch) < wanted:
            request = self._queue.popleft()
            if request.withdrawn:
                continue
            if request.deadline <= now:
                request.answered(DeadlineExceeded())
            else:
                request.given = True
                batch.append(request)
