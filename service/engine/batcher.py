"""A bounded queue that hands out its requests in batches, leaving out those nobody waits for any more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from service.engine.errors import DeadlineExceeded, EngineStopped, Overloaded
from service.engine.overload import Overload
from service.engine.request import AnswerT, PayloadT, PendingRequest


@dataclass(frozen=True)
class BatchPolicy:
    """How batches form.

    Attributes:
        workers: how many take batches; where they do not wait, what is queued is shared out among them.
        max_batch: most requests in a batch.
        max_wait_ms: how long the oldest request may wait for company; 0 takes at once what is there.
    """

    workers: int
    max_batch: int
    max_wait_ms: float


class Batcher(Generic[PayloadT, AnswerT]):
    """First in, first out. It belongs to the event loop; other threads may only look.

    A burst may fill the queue to its capacity. When even that overflows, more is coming in than can be done, and a long
    queue would only make every answer late: as long as that overload lasts, only as much may wait, here or at a worker,
    as lets every worker go on at once when it is done, and what does not fit is refused at once.

    Args:
        capacity: most requests queued; more are refused.
        policy: how batches form.
        clock: seconds that never go back.
        given_ahead: how many requests workers have been given that they have not begun.
        on_overload: told when an overload begins, and at the first request accepted after it.

    Attributes:
        seconds_each: running mean of the seconds a worker spends on one request; 0 before any was run.
        overload: whether there is one.
    """

    def __init__(
        self,
        capacity: int,
        policy: BatchPolicy,
        clock: Callable[[], float],
        given_ahead: Callable[[], int] = lambda: 0,
        on_overload: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.capacity = capacity
        self.policy = policy
        self.seconds_each = 0.0
        self._clock = clock
        self._given_ahead = given_ahead
        self.overload = Overload(capacity, clock, lambda: self.seconds_each / policy.workers, on_overload)
        self._queue: deque[PendingRequest[PayloadT, AnswerT]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, request: PendingRequest[PayloadT, AnswerT]) -> None:
        """Queue a request.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the batcher is closed.
        """
        self.require_room()
        self.overload.note_accepted()
        self._queue.append(request)

    def put_back(self, requests: Sequence[PendingRequest[PayloadT, AnswerT]]) -> None:
        """Have what was taken, and never begun, be the next that is taken."""
        self._queue.extendleft(reversed(requests))

    def require_room(self) -> None:
        """Return where a request would be queued now.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the batcher is closed.
        """
        if self._closed:
            raise EngineStopped
        room_for = self._room_under_overload() if self.overload else self.capacity
        if len(self._queue) >= room_for:
            # Withdrawn requests must not keep others out; looking for them is left to the moment it matters.
            self._queue = deque(waiting for waiting in self._queue if not waiting.withdrawn)
        if len(self._queue) >= room_for:
            self.overload.note_refused()
            raise Overloaded(len(self._queue) * self.seconds_each / self.policy.workers)

    @property
    def wait_s(self) -> float:
        """How long what is queued should still wait for company; 0 where a batch may be taken now."""
        longest_ms = self.policy.max_wait_ms
        if not longest_ms or self._closed or not 0 < len(self._queue) < self.policy.max_batch:
            return 0.0
        return max(0.0, self._queue[0].queued_at + longest_ms / 1000 - self._clock())

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
        each = seconds / requests
        self.seconds_each = each if not self.seconds_each else 0.9 * self.seconds_each + 0.1 * each

    def close(self) -> None:
        """Refuse new requests; what is queued is still handed out."""
        self._closed = True

    def drop_all(self) -> None:
        """Fail everything still queued with EngineStopped."""
        while self._queue:
            request = self._queue.popleft()
            if not request.withdrawn:
                request.answered(EngineStopped())

    def _room_under_overload(self) -> int:
        """How many may be queued: with those ahead a batch for each worker, or half of one where none are ahead."""
        batches = self.policy.workers * self.policy.max_batch
        room = math.ceil(batches / 2) if self.policy.max_wait_ms else batches - self._given_ahead()
        return min(self.capacity, room)

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
                batch.append(request)
