"""A bounded queue that hands out its requests in batches, leaving out those nobody waits for any more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Generic

from service.engine.errors import DeadlineExceeded, EngineStopped, Overloaded
from service.engine.idle import Idle
from service.engine.request import AnswerT, PayloadT, PendingRequest

# How long nothing must have been refused before the queue may grow to its capacity again.
_CALM_S = 1.0
# How long requests must have been refused, without such a calm, for it to be more than a burst.
_CONGESTED_S = 5.0


@dataclass(frozen=True)
class BatchPolicy:
    """How batches form.

    Attributes:
        workers: how many threads take batches; where they do not wait, what is queued is shared out among them.
        max_batch: most requests in a batch.
        max_wait_ms: how long the oldest request may wait for company; 0 takes at once what is there.
    """

    workers: int
    max_batch: int
    max_wait_ms: float


class Batcher(Generic[PayloadT, AnswerT]):
    """First in, first out. All methods may be called from any thread.

    A burst may fill the queue to its capacity. When even that overflows, more is coming in than can be done, and a long
    queue would only make every answer late: until nothing had to be refused for a second, it is kept as short as it can
    be with the workers hardly ever idle, and what does not fit is refused at once.

    Args:
        capacity: most requests queued; more are refused.
        policy: how batches form.
        clock: seconds that never go back.
    """

    def __init__(self, capacity: int, policy: BatchPolicy, clock: Callable[[], float]) -> None:
        self.capacity = capacity
        self.policy = policy
        self._clock = clock
        self._queue: deque[PendingRequest[PayloadT, AnswerT]] = deque()
        self._lock = RLock()  # answers that are given with it held may lead back here
        self._idle = Idle(self._lock)
        self._closed = False
        self._overload_capacity = min(capacity, math.ceil(policy.workers * policy.max_batch / 2))
        self._refused_at = -math.inf
        self._refusing_since = -math.inf
        # Running mean of the seconds a worker spends on one request; it prices the queue for those refused.
        self._seconds_each = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def congested(self) -> bool:
        """Whether requests have been refused for a while, and still are."""
        now = self._clock()
        return now - self._refused_at < _CALM_S and now - self._refusing_since >= _CONGESTED_S

    def put(self, request: PendingRequest[PayloadT, AnswerT]) -> None:
        """Queue a request.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the batcher is closed.
        """
        with self._lock:
            self._require_room()
            self._queue.append(request)
            self._idle.wake()

    def require_room(self) -> None:
        """Return where a request would be queued now.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the batcher is closed.
        """
        with self._lock:
            self._require_room()

    def take(self, patience_s: float | None = None) -> list[PendingRequest[PayloadT, AnswerT]] | None:
        """Wait for requests and take a batch; None once the batcher is closed and empty.

        Nothing is in it where there was nothing to take within `patience_s` seconds (of real time).

        Every request returned is claimed: its future can no longer be cancelled. Withdrawn requests are dropped, and
        those past their deadline fail with DeadlineExceeded, before they cost any compute.
        """
        while True:
            with self._lock:
                while not self._queue:
                    if self._closed:
                        return None
                    if not self._idle.wait(patience_s):
                        return []
                self._wait_for_company()
                batch = self._claim(self._fair_share())
            if batch:
                return batch

    def take_ahead(self) -> list[PendingRequest[PayloadT, AnswerT]]:
        """A batch for a worker that has one already, as `take` has it; empty where another could run it sooner."""
        with self._lock:
            if self._idle or self.policy.max_wait_ms:
                return []
            return self._claim(self._fair_share())

    def note_speed(self, seconds: float, requests: int) -> None:
        """Tell how long a worker took for a batch, for the estimate given to refused requests."""
        with self._lock:
            each = seconds / requests
            self._seconds_each = each if not self._seconds_each else 0.9 * self._seconds_each + 0.1 * each

    def close(self) -> None:
        """Refuse new requests; what is queued is still handed out."""
        with self._lock:
            self._closed = True
            self._idle.wake_all()

    def drop_all(self) -> None:
        """Fail everything still queued with EngineStopped."""
        with self._lock:
            while self._queue:
                request = self._queue.popleft()
                if request.future.set_running_or_notify_cancel():
                    request.future.set_exception(EngineStopped())

    def _require_room(self) -> None:
        if self._closed:
            raise EngineStopped
        now = self._clock()
        overloaded = now - self._refused_at < _CALM_S
        room_for = self._overload_capacity if overloaded else self.capacity
        if len(self._queue) >= room_for:
            # Withdrawn requests must not keep others out; looking for them is left to the moment it matters.
            self._queue = deque(waiting for waiting in self._queue if not waiting.future.cancelled())
        if len(self._queue) >= room_for:
            if not overloaded:
                self._refusing_since = now
            self._refused_at = now
            raise Overloaded(len(self._queue) * self._seconds_each / self.policy.workers)

    def _wait_for_company(self) -> None:
        """Wait until a batch is full or the oldest request has waited long enough."""
        if not self.policy.max_wait_ms:
            return
        while self._queue and len(self._queue) < self.policy.max_batch and not self._closed:
            remaining = self._queue[0].queued_at + self.policy.max_wait_ms / 1000 - self._clock()
            if remaining <= 0:
                return
            self._idle.wait(remaining)

    def _fair_share(self) -> int:
        """How many requests one worker takes: all of a batch that was waited for, else what is due to one of many."""
        sharers = 1 if self.policy.max_wait_ms else self.policy.workers
        return min(self.policy.max_batch, math.ceil(len(self._queue) / sharers))

    def _claim(self, wanted: int) -> list[PendingRequest[PayloadT, AnswerT]]:
        batch: list[PendingRequest[PayloadT, AnswerT]] = []
        now = self._clock()
        while self._queue and len(batch) < wanted:
            request = self._queue.popleft()
            if not request.future.set_running_or_notify_cancel():
                continue
            if request.deadline <= now:
                request.future.set_exception(DeadlineExceeded())
            else:
                batch.append(request)
        return batch
