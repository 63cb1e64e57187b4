"""Which worker is given what is queued: of those that are idle, the one that came last; else one that can do with more.

Dear requests, which are likely to take far longer than others, wait in a line of their own. As long as others come,
they may have half of the workers at most; a single worker has as much time for the others after one as that took.

A worker that is busy can do with more when nothing was queued that it could have been given to follow. What is queued
later goes to it only when it is about to be done: until then another may be done first, or the request be withdrawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol

from service.engine.errors import EngineError
from service.engine.job import AnswerT, PayloadT, PendingRequest
from service.engine.queueing.batcher import Batcher


class Taker(Protocol[PayloadT, AnswerT]):
    """Whoever is given batches."""

    def run(self, batch: list[PendingRequest[PayloadT, AnswerT]], /) -> None:
        """Run a batch, having nothing else to do."""


class Busy(Protocol):
    """Whoever has had something to run."""

    @property
    def takes_more(self) -> bool:
        """Whether it is about to be done with that, and can do with more."""

    def go_ahead(self) -> None:
        """Take what is to follow."""


class Dispatcher(Generic[PayloadT, AnswerT]):
    """Keeps the idle ones as a stack: what the last one ran is still in the caches of its core.

    Args:
        batcher: of what is queued.
        dear: of what is queued and dear.
        clock: seconds that never go back.
    """

    def __init__(
        self, batcher: Batcher[PayloadT, AnswerT], dear: Batcher[PayloadT, AnswerT], clock: Callable[[], float]
    ) -> None:
        self._batcher = batcher
        self._dear = dear
        self._clock = clock
        self._dear_running = 0
        self._dear_begun = self._dear_again_at = 0.0  # of the last; before the second others come first
        self._idle: list[Taker[PayloadT, AnswerT]] = []
        self._unfilled: dict[Busy, None] = {}  # a set in order; some may have come to rest
        self._timer: asyncio.TimerHandle | None = None

    def hand_out(self) -> None:
        """Give what may be taken now; called whenever there is more of it, or of those who take it."""
        self._hand_out_dear()
        while self._idle and self._batcher:
            if wait_s := self._batcher.wait_s:
                self._come_back(wait_s)
                return
            taker = self._idle.pop()
            if batch := self._batcher.take():
                taker.run(batch)
            else:
                self._idle.append(taker)
        for busy in [*self._unfilled]:
            if self._idle or not self._batcher:
                return
            if busy.takes_more:
                del self._unfilled[busy]
                busy.go_ahead()

    def _hand_out_dear(self) -> None:
        while self._idle and self._dear and self._dear_may_run():
            taker = self._idle.pop(0)  # the one that ran longest ago: the others are warm
            batch = self._dear.take()
            if not batch:
                self._idle.insert(0, taker)
                return
            self._dear_running += 1
            self._dear_begun = self._clock()
            taker.run(batch)

    def _dear_may_run(self) -> bool:
        now = self._clock()
        if not self._batcher.came_lately(now):
            return True
        workers = self._batcher.policy.workers
        if workers > 1:
            return self._dear_running < workers // 2
        if now < self._dear_again_at:
            self._come_back(self._dear_again_at - now)
            return False
        return True

    def end_dear(self) -> None:
        """Note that a worker is done with a dear request, or was lost with it."""
        self._dear_running -= 1
        now = self._clock()
        self._dear_again_at = now + (now - self._dear_begun)

    def close(self) -> None:
        """Have no more requests taken, and hand out what there is."""
        self._batcher.close()
        self._dear.close()
        self.hand_out()

    def drop_all(self, error: EngineError) -> None:
        """Fail everything that waits with this error."""
        self._batcher.drop_all(error)
        self._dear.drop_all(error)

    def batcher_of(self, batch: list[PendingRequest[PayloadT, AnswerT]]) -> Batcher[PayloadT, AnswerT]:
        """Where a batch came from."""
        return self._dear if batch and batch[0].dear else self._batcher

    def come_free(self, taker: Taker[PayloadT, AnswerT]) -> None:
        """Note that a worker has nothing to do."""
        self._idle.append(taker)
        self.hand_out()

    def leave(self, taker: Taker[PayloadT, AnswerT]) -> bool:
        """Give a worker nothing any more, and say whether it was idle."""
        if taker not in self._idle:
            return False
        self._idle.remove(taker)
        return True

    def ahead(self, busy: Busy) -> list[PendingRequest[PayloadT, AnswerT]]:
        """A batch for one that has another already; empty where an idle one could run it sooner, or nothing is queued.

        Then it is asked again when that has changed.
        """
        batch = [] if self._idle else self._batcher.take_ahead()
        if not batch:
            self._unfilled[busy] = None
        return batch

    def _come_back(self, wait_s: float) -> None:
        """Hand out again when the oldest has waited long enough for company."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self.hand_out()
