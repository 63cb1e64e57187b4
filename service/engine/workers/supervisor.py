"""Keeps one worker running until the engine stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass

from artifact.manifest import ArtifactError
from service.engine.errors import EngineError, EngineStopped, WorkerLost
from service.engine.job import Outcome
from service.engine.queueing.scheduler import Scheduler
from service.engine.queueing.slot import Batch
from service.engine.workers.base import Worker

_log = logging.getLogger(__name__)

# How long to wait before another try to start a worker that could not be started; it doubles up to the longest.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0


@dataclass(frozen=True)
class Surroundings:
    """What the supervisors of an engine share.

    Attributes:
        scheduler: hands out the work.
        tell: is told what comes of a batch.
        on_loss: told why, whenever a worker is lost.
        on_rest: told whenever a worker has nothing to do any more.
        on_failed_start: told whenever one that was lost could not be started again.
        over: set when what is left is given up.
    """

    scheduler: Scheduler
    tell: Callable[[Batch, Sequence[Outcome]], None]
    on_loss: Callable[[str], None]
    on_rest: Callable[[], None]
    on_failed_start: Callable[[], None]
    over: asyncio.Event


class Supervisor:
    """Everything happens on the event loop, but for what takes long.

    Args:
        worker: that is supervised.
        around: what it shares with the others.

    Attributes:
        given_up: whether the worker could not be started again before that was called off.
        retry_s: while the last try to start the worker has failed, how long until the next, in seconds; else None.
    """

    def __init__(self, worker: Worker, around: Surroundings) -> None:
        self.worker = worker
        self.given_up = False
        self.retry_s: float | None = None
        self._around = around
        self._slot = around.scheduler.add(worker)
        self._check: asyncio.Future[None] | None = None
        self._revival: asyncio.Task[None] | None = None
        self._serving = False
        self._called_off = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether the worker has something to run."""
        return bool(self._slot.batches) or self._check is not None

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

    async def check(self, model: int, batch_size: int) -> None:
        """Have the worker, which has nothing to do, run a model once on that many images.

        Raises:
            InferenceFailed: it does not run.
            WorkerLost: the worker is lost.
        """
        if not self.worker.check(model, batch_size):
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

    def set_aside(self) -> bool:
        """Have the worker given no work for now, if it has none; say whether that is so."""
        return self._around.scheduler.set_aside(self._slot)

    def retire(self) -> None:
        """Have the worker given no more work, and not be started again where it is lost; it runs what it has."""
        self._serving = False
        self._around.scheduler.retire(self._slot)
        self.call_off()
        if self.starting:
            self.worker.abort()

    def call_off(self) -> None:
        """Try no more to start the worker where that has failed."""
        self._called_off.set()

    async def end(self) -> None:
        """End the worker, which is given nothing more."""
        self._serving = False
        self._around.scheduler.forget(self._slot)
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
                await asyncio.wait_for(self._called_off.wait(), retry_s)
                break
            retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        self._revival = None
        self.given_up = True
        around.on_rest()

    def _come_free(self) -> None:
        self._around.scheduler.take_in(self._slot)
        self._around.on_rest()

    def _take(self, outcomes: list[Outcome]) -> None:
        """Take what the worker says; it goes on with the next batch before anybody is answered."""
        if not self._slot.batches:  # it was a check
            self._end_check(outcomes[0] if outcomes else None)
            return
        done = self._around.scheduler.go_on(self._slot)
        self._around.tell(done, outcomes)
        if not self._slot.batches:
            self._around.on_rest()

    def _lose(self, reason: str) -> None:
        """Answer for a worker that is lost, and start it again."""
        around, loss = self._around, WorkerLost(reason)
        lost = around.scheduler.take_out(self._slot)
        around.on_loss(reason)
        if self._check is not None:
            self._end_check(loss)
        if around.over.is_set():
            around.scheduler.fail_all(EngineStopped())
        elif self._serving:
            self.revive()
        around.tell(lost, [loss] * len(lost))
        around.scheduler.dispatch()
        around.on_rest()

    def _end_check(self, outcome: object) -> None:
        if self._check is None or self._check.done():
            return
        if isinstance(outcome, Exception):
            self._check.set_exception(outcome)
        else:
            self._check.set_result(None)
