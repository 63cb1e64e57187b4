"""The engine: requests go into a bounded queue, workers take batches, and what comes of each request is its answer."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic

from service.engine.errors import EngineStopped, NoWorker
from service.engine.health import Health
from service.engine.job import Answer, Outcome, PayloadT, PendingRequest
from service.engine.probing import Probing
from service.engine.queueing.batcher import Batcher
from service.engine.queueing.dispatcher import Dispatcher
from service.engine.results import Results
from service.engine.runtimes.tuning import BatchPolicy
from service.engine.workers.pool import WorkerPool
from service.engine.workers.supervisor import Caretaker, Surroundings

# How long to wait for those who waited for a worker that was ended to be told so, in seconds.
_LONGEST_END_S = 1.0


class Engine(Generic[PayloadT]):
    """Runs requests on the workers of a pool. It lives on an event loop: no thread stands between it and the workers.

    Preparing (decoding) happens in the workers too, so that neither a slow nor a hostile image holds up the service.

    Args:
        pool: of workers; they are started and closed with the engine.
        capacity: most requests queued.
        longest_s: deadline of requests, in seconds; some have less.
        on_batch: told the size of every batch that ran.
        on_loss: told why, whenever a worker is lost: "died" or "stuck".
        on_overload: told when an overload begins, and at the first request after it has ended.
        clock: seconds that never go back, the same in all workers.

    Attributes:
        leaving: whether it will soon be stopped.
    """

    def __init__(
        self,
        pool: WorkerPool[PayloadT],
        capacity: int,
        longest_s: float = math.inf,
        on_batch: Callable[[int], None] = lambda _: None,
        on_loss: Callable[[str], None] = lambda _: None,
        on_overload: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self._clock = clock
        self._batcher: Batcher[PayloadT, Answer] = Batcher(
            capacity,
            pool.tuning.policy,
            clock,
            longest_s=longest_s,
            given_ahead=self._given_ahead,
            workers=self._working,
            on_overload=on_overload,
        )
        few = max(1, pool.tuning.policy.workers // 2)
        self._dear: Batcher[PayloadT, Answer] = Batcher(capacity, BatchPolicy(few, 1, 0), clock, longest_s=longest_s)
        self._health = Health()
        self._running = self.leaving = False
        self._stopping, self._over, self._rested = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._around = Surroundings(
            batcher=self._batcher,
            dispatcher=Dispatcher(self._batcher, self._dear, clock),
            results=Results(self._health, on_batch),
            on_loss=on_loss,
            on_rest=self._rested.set,
            on_failed_start=self._give_up_waiting,
            clock=clock,
            stopping=self._stopping,
            over=self._over,
        )
        self._caretakers = [Caretaker(worker, self._around) for worker in pool.workers]
        self._probing = Probing(self._health, self._caretakers, self._around.dispatcher)

    @property
    def problem(self) -> str | None:
        """Why no request should be sent here now; None where the service is ready."""
        if not self._running:
            return "stopping" if self._stopping.is_set() else "starting"
        if self.leaving:
            return "stopping"
        if not any(worker.alive for worker in self.pool.workers):
            return "no worker is running"
        if self._health.failing:
            return "the last inferences failed"
        if self._batcher.overload.lasting:
            return "the queue has been full for a while"
        return None

    @property
    def ready(self) -> bool:
        """Whether requests are taken and can be expected to be answered."""
        return self.problem is None

    @property
    def queue_depth(self) -> int:
        """Requests waiting for a worker."""
        return len(self._batcher) + len(self._dear)

    @property
    def queue_capacity(self) -> int:
        """Most requests that may wait."""
        return self._batcher.capacity

    def pids(self) -> dict[str, int]:
        """The processes that there are now: this one, and those of workers that have their own."""
        workers = {f"worker-{number}": worker.pid for number, worker in enumerate(self.pool.workers)}
        return {"server": os.getpid()} | {name: pid for name, pid in workers.items() if pid is not None}

    async def start(self) -> None:
        """Run the model on one image and on a full batch, then take requests. Other workers may still be starting.

        Raises:
            ArtifactError, EngineError: the model does not run here.
        """
        first, *others = self._caretakers
        await first.open()
        for batch_size in {1, self.pool.tuning.policy.max_batch}:
            await first.check(batch_size)
        first.serve()
        for caretaker in others:
            caretaker.revive()
        self._probing.begin()
        self._running = True

    def require_room(self) -> None:
        """Return where a payload would be taken now; asked before one is even received.

        Raises:
            Overloaded: the queue is full.
            NoWorker: there is none that could run it, and one could not be started.
            EngineStopped: the engine is not running.
        """
        self._require_workers()
        self._batcher.require_room()

    def submit(
        self,
        payload: PayloadT,
        deadline_s: float,
        answered: Callable[[Outcome], None],
        follows: bool = False,
        dear: bool = False,
    ) -> PendingRequest[PayloadT, Answer]:
        """Queue a payload, to be answered within `deadline_s` seconds. It goes to an idle worker at once.

        Args:
            payload: what to run.
            deadline_s: how long its answer is of any worth.
            answered: called on the loop with what came of it, unless it was withdrawn before a worker had it.
            follows: whether it belongs to one that was accepted, and is refused only where the queue is full.
            dear: whether it may take far longer than others; see `Dispatcher`.

        Raises:
            Overloaded: the queue is full.
            NoWorker: there is none that could run it, and one could not be started.
            EngineStopped: the engine is not running.
        """
        self._require_workers()
        now = self._clock()
        request: PendingRequest[PayloadT, Answer] = PendingRequest(payload, now, now + deadline_s, answered, dear=dear)
        (self._dear if dear else self._batcher).put(request, follows)
        self._around.dispatcher.hand_out()
        return request

    def leave(self) -> None:
        """Say that it will soon be stopped: it is not ready any more, but takes what still comes."""
        self.leaving = True

    async def stop(self, drain_s: float) -> None:
        """Take no more requests, finish those queued for at most `drain_s` seconds, fail the rest, end the workers."""
        self._running = False
        self._stopping.set()
        self._around.dispatcher.close()
        await self._until(self._drained, drain_s)
        self._over.set()
        self._probing.end()
        self._around.dispatcher.drop_all(EngineStopped())
        for caretaker in self._caretakers:
            if caretaker.busy or caretaker.starting:
                caretaker.worker.abort()
        await self._until(self._at_rest, _LONGEST_END_S)
        await asyncio.gather(*(caretaker.end() for caretaker in self._caretakers))

    def _require_workers(self) -> None:
        if not self._running:
            raise EngineStopped
        if (retry_s := self._without_workers_s) is not None:
            raise NoWorker(retry_s)

    @property
    def _without_workers_s(self) -> float | None:
        """How long there will be no worker, in seconds; None where one is alive, or may be any moment."""
        soonest_s = math.inf
        for caretaker in self._caretakers:
            if caretaker.retry_s is None:
                return None
            soonest_s = min(soonest_s, caretaker.retry_s)
        return soonest_s

    def _give_up_waiting(self) -> None:
        """Let nobody wait for workers that there may never be."""
        if (retry_s := self._without_workers_s) is not None:
            self._around.dispatcher.drop_all(NoWorker(retry_s))

    def _given_ahead(self) -> int:
        return sum([caretaker.ahead for caretaker in self._caretakers])

    def _working(self) -> int:
        return sum([caretaker.working for caretaker in self._caretakers])

    def _drained(self) -> bool:
        """Whether nothing that was accepted will still be run."""
        nobody = all(caretaker.given_up for caretaker in self._caretakers)
        return nobody or not (self.queue_depth or any(caretaker.busy for caretaker in self._caretakers))

    def _at_rest(self) -> bool:
        return not any(caretaker.busy or caretaker.starting for caretaker in self._caretakers)

    async def _until(self, condition: Callable[[], bool], longest_s: float) -> None:
        """Wait until something is so, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                while not condition():
                    self._rested.clear()
                    await self._rested.wait()
