"""What one worker has to do: the batch it runs, and those it has been given ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol

from service.engine.job import Answer, Job, PayloadT, PendingRequest
from service.engine.queueing.batcher import Batcher
from service.engine.queueing.dispatcher import Dispatcher

# How much work a worker is given ahead, in seconds, and one batch in any case. It is how late the event loop may be
# without a core having nothing to do; what a worker has, no other can run any sooner.
_AHEAD_S = 0.004

Batch = list[PendingRequest[PayloadT, Answer]]


class Runner(Protocol[PayloadT]):
    """Whoever runs batches, in the order in which it is given them."""

    def give(self, jobs: Sequence[Job[PayloadT]], /) -> bool:
        """Give it a batch, and say whether it is still there; where it is not, it has not begun with that."""


class Workload(Generic[PayloadT]):
    """Gives the worker batches, and knows which of them it runs.

    Args:
        worker: whose it is.
        batcher: to which what was never begun goes back.
        dispatcher: says what there is to be done ahead.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        worker: Runner[PayloadT],
        batcher: Batcher[PayloadT, Answer],
        dispatcher: Dispatcher[PayloadT, Answer],
        clock: Callable[[], float],
    ) -> None:
        self._worker = worker
        self._batcher = batcher
        self._dispatcher = dispatcher
        self._clock = clock
        self._given: deque[Batch[PayloadT]] = deque()
        self._begun = 0.0  # with the first of them

    def __len__(self) -> int:
        """How many batches the worker has."""
        return len(self._given)

    @property
    def ahead(self) -> int:
        """How many requests it has been given that it has not begun."""
        return sum([len(batch) for batch in self._given]) - len(self._given[0]) if self._given else 0

    @property
    def takes_more(self) -> bool:
        """Whether the worker is about to be done with what it runs, and has not enough to follow.

        One that is long overdue, as one is that hangs, is not.
        """
        each = self._batcher.seconds_each
        if not self._given or not each or self._has_enough():  # or nobody knows
            return False
        done_at = self._begun + each * len(self._given[0])
        return abs(done_at - self._clock()) <= _AHEAD_S

    def begin(self, batch: Batch[PayloadT]) -> None:
        """Give a batch to the worker, which has none, and what is to follow."""
        if self._worker.give(batch):
            self._given.append(batch)
            self._begun = self._clock()
            self.go_ahead()
        else:  # it died while it had nothing to do, for which its next batch need not pay
            self._end_dear(batch)
            self._put_back(batch)

    def go_on(self) -> Batch[PayloadT]:
        """The batch the worker is done with; it goes on with the next."""
        done, now = self._given.popleft(), self._clock()
        self._dispatcher.batcher_of(done).note_speed(now - self._begun, len(done))
        self._end_dear(done)
        self._begun = now
        if self._given:
            self.go_ahead()
        return done

    def end(self) -> Batch[PayloadT]:
        """The batch that the worker was lost with; those ahead are the next for whoever takes some."""
        if not self._given:
            return []
        lost = self._given.popleft()
        self._end_dear(lost)
        while self._given:
            self._put_back(self._given.pop())
        return lost

    def _end_dear(self, batch: Batch[PayloadT]) -> None:
        if batch[0].dear:
            self._dispatcher.end_dear()

    def _put_back(self, batch: Batch[PayloadT]) -> None:
        self._dispatcher.batcher_of(batch).put_back(batch)

    def go_ahead(self) -> None:
        """Give the worker, which has something to do, what is to follow."""
        while not self._has_enough():
            batch = self._dispatcher.ahead(self)
            if not batch:
                return
            if not self._worker.give(batch):
                self._put_back(batch)
                return
            self._given.append(batch)

    def _has_enough(self) -> bool:
        """Whether no more should be given ahead: behind a dear request nothing should wait that others could run.

        Under overload a single batch is enough, lest answers be late.
        """
        if self._given and self._given[0][0].dear:
            return True
        if len(self._given) == 1:
            return False
        each = self._batcher.seconds_each or _AHEAD_S  # as long as nobody knows
        return bool(self._batcher.overload) or each * self.ahead >= _AHEAD_S
