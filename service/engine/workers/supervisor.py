"""What is done for one worker until the engine stops: it is kept alive, and given work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Generic

from artifact.manifest import ArtifactError
from service.engine.errors import EngineError, EngineStopped, WorkerLost
from service.engine.job import Answer, Outcome, PayloadT
from service.engine.queueing.batcher import Batcher
from service.engine.queueing.dispatcher import Dispatcher
from service.engine.queueing.workload import Batch, Workload
from service.engine.results import Results
from service.engine.workers.base import Worker

_log = logging.getLogger(__name__)

# How long to wait before another try to start a worker that could not be started; it doubles up to the longest.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0


@dataclass(frozen=True)
class Surroundings(Generic[PayloadT]):
    """What the caretakers of an engine share.

    Attributes:
        batcher, dispatcher: hand out the work.
        results: is told what comes of it.
        on_loss: told why, whenever a worker is lost.
        on_rest: told whenever a worker has nothing to do any more.
        on_failed_start: told whenever one that was lost could not be started again.
        clock: seconds that never go back.
        stopping: set when no more work is taken.
        over: set when what is left is given up.
    """

    batcher: Batcher[PayloadT, Answer]
    dispatcher: Dispatcher[PayloadT, Answer]
    results: Results
    on_loss: Callable[[str], None]
    on_rest: Callable[[], None]
    on_failed_start: Callable[[], None]
    clock: Callable[[], float]
    stopping: asyncio.Event
    over: asyncio.Event


class Caretaker(Generic[PayloadT]):
    """Everything happens on the event loop, but for what takes long.

    Args:
        worker: that it takes care of.
        around: what it shares with the others.

    Attributes:
        given_up: whether the worker could not be started again before the engine stopped.
        retry_s: while the last try to start the worker has failed, how long until the next, in seconds; else None.
    """

    def __init__(self, worker: Worker[PayloadT], around: Surroundings[PayloadT]) -> None:
        self.worker = worker
        self.given_up = False
        self.retry_s: float | None = None
        self._around = around
        self._load = Workload(worker, around.batcher, around.dispatcher, around.clock)
        self._check: asyncio.Future[None] | None = None
        self._revival: asyncio.Task[None] | None = None
        self._serving = False

    @property
    def busy(self) -> bool:
        """Whether the worker has something to run."""
        return len(self._load) > 0 or self._check is not None

    @property
    def working(self) -> bool:
        """Whether the worker runs what it is given, as far as is known."""
        return self._serving and self._revival is None and not self.given_up

    @property
    def ahead(self) -> int:
        """How many requests the worker has been given that it has not begun."""
        return self._load.ahead

    @property
    def starting(self) -> bool:
        """Whether the worker is being started."""
        return self._revival is not None

    async def open(self) -> None:
        """Start the worker.

        Raises:
            ArtifactError, EngineError: it cannot be.
        """
        await asyncio.to_thread(self.worker.start)
        await self.worker.connect(self._take, self._lose)

    async def check(self, batch_size: int) -> None:
        """Have the worker, which has nothing to do, run the model once on that many images.

        Raises:
            InferenceFailed: it does not run.
            WorkerLost: the worker is lost.
        """
        if not self.worker.check(batch_size):
            raise WorkerLost("died")
        self._check = asyncio.get_running_loop().create_future()
        try:
            await self._check
        finally:
            self._check = None

    def serve(self) -> None:
        """Have the worker given work, now and whenever it is started again."""
        self._serving = True
        self._come_free()

    def revive(self) -> None:
        """Start the worker, trying again until it is, and have it given work."""
        self._serving = True
        # In a context of its own: this may be called in that of a request, which its log lines would name.
        self._revival = asyncio.get_running_loop().create_task(self._started_at_last(), context=Context())

    def run(self, batch: Batch[PayloadT], /) -> None:
        """Give the worker a batch, having nothing else to do."""
        self._load.begin(batch)

    async def end(self) -> None:
        """End the worker."""
        self._serving = False
        self._around.dispatcher.leave(self)
        self.worker.disconnect()
        await asyncio.to_thread(self.worker.close)

    async def _started_at_last(self) -> None:
        around, retry_s = self._around, _FIRST_RETRY_S
        while not around.over.is_set():
            try:
                await self.open()
            except (ArtifactError, EngineError) as error:
                _log.error("a worker cannot be started: %s", error)
            except Exception:  # lest it be the last try
                _log.exception("a worker cannot be started")
            else:
                self._revival = self.retry_s = None
                self._come_free()
                return
            self.retry_s = retry_s
            around.on_failed_start()
            with suppress(TimeoutError):
                await asyncio.wait_for(around.stopping.wait(), retry_s)
                break
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        self._revival = None
        self.given_up = True
        around.on_rest()

    def _come_free(self) -> None:
        self._around.dispatcher.come_free(self)
        self._around.on_rest()

    def _take(self, outcomes: list[Outcome]) -> None:
        """Take what the worker says; it goes on with the next batch before anybody is answered."""
        if not self._load:  # it was a check
            self._end_check(outcomes[0] if outcomes else None)
            return
        done = self._load.go_on()
        if not self._load:
            self._around.dispatcher.come_free(self)
        self._around.results.tell(done, outcomes)
        if not self._load:
            self._around.on_rest()

    def _lose(self, reason: str) -> None:
        """Answer for a worker that is lost, and start it again."""
        around, loss = self._around, WorkerLost(reason)
        around.dispatcher.leave(self)
        around.on_loss(reason)
        if self._check is not None:
            self._end_check(loss)
        lost = self._load.end()
        if around.over.is_set():
            around.dispatcher.drop_all(EngineStopped())
        elif self._serving:
            self.revive()
        around.results.tell(lost, [loss] * len(lost))
        around.dispatcher.hand_out()
        around.on_rest()

    def _end_check(self, outcome: object) -> None:
        if self._check is None or self._check.done():
            return
        if isinstance(outcome, Exception):
            self._check.set_exception(outcome)
        else:
            self._check.set_result(None)
