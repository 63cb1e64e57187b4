"""The engine: requests go into a bounded queue, workers take batches, and what comes of each request is its answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Thread
from typing import Generic

from service.engine.batcher import Batcher
from service.engine.caretaker import Caretaker, Surroundings
from service.engine.errors import EngineStopped
from service.engine.health import Health
from service.engine.pool import WorkerPool
from service.engine.request import PayloadT, PendingRequest
from service.engine.worker import Answer

# How long to wait for those who waited for a worker that was ended to be told so, in seconds.
_LONGEST_END_S = 1.0


class Engine(Generic[PayloadT]):
    """Runs requests on the workers of a pool, each of which has a thread here.

    Preparing (decoding) happens in the workers too, so that neither a slow nor a hostile image holds up the service.

    Args:
        pool: of workers; they are started and closed with the engine.
        capacity: most requests queued.
        on_batch: told the size of every batch that ran.
        on_loss: told why, whenever a worker is lost: "died" or "stuck".
        clock: seconds that never go back.
    """

    def __init__(
        self,
        pool: WorkerPool[PayloadT],
        capacity: int,
        on_batch: Callable[[int], None] = lambda _: None,
        on_loss: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self._clock = clock
        self._batcher: Batcher[PayloadT, Answer] = Batcher(capacity, pool.tuning.policy, clock)
        self._health = Health()
        self._running = False
        self._stopping = Event()
        self._over = Event()
        surroundings = Surroundings(self._batcher, self._health, on_batch, on_loss, clock, self._stopping, self._over)
        self._threads = [
            Thread(target=Caretaker(worker, surroundings).run, name=f"engine-{number}", daemon=True)
            for number, worker in enumerate(pool.workers)
        ]

    @property
    def problem(self) -> str | None:
        """Why no request should be sent here now; None where the service is ready."""
        if not self._running:
            return "stopping" if self._stopping.is_set() else "starting"
        if not any(worker.alive for worker in self.pool.workers):
            return "no worker is running"
        if self._health.failing:
            return "the last inferences failed"
        if self._batcher.congested:
            return "the queue has been full for a while"
        return None

    @property
    def ready(self) -> bool:
        """Whether requests are taken and can be expected to be answered."""
        return self.problem is None

    @property
    def queue_depth(self) -> int:
        """Requests waiting for a worker."""
        return len(self._batcher)

    @property
    def queue_capacity(self) -> int:
        """Most requests that may wait."""
        return self._batcher.capacity

    def pids(self) -> dict[str, int]:
        """The processes that there are now: this one, and those of workers that have their own."""
        workers = {f"worker-{number}": worker.pid for number, worker in enumerate(self.pool.workers)}
        return {"server": os.getpid()} | {name: pid for name, pid in workers.items() if pid is not None}

    def start(self) -> None:
        """Run the model on one image and on a full batch, then take requests. Other workers may still be starting.

        Raises:
            ArtifactError, EngineError: the model does not run here.
        """
        first = self.pool.workers[0]
        if not first.alive:
            first.start()
        for batch_size in {1, self.pool.tuning.policy.max_batch}:
            first.check(batch_size)
        for thread in self._threads:
            thread.start()
        self._running = True

    def require_room(self) -> None:
        """Return where a payload would be taken now; asked before one is even received.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the engine is not running.
        """
        if not self._running:
            raise EngineStopped
        self._batcher.require_room()

    def submit(self, payload: PayloadT, deadline_s: float) -> Future[Answer]:
        """Queue a payload, to be answered within `deadline_s` seconds. Cancelling the future withdraws it.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the engine is not running.
        """
        if not self._running:
            raise EngineStopped
        now = self._clock()
        request: PendingRequest[PayloadT, Answer] = PendingRequest(payload, now, now + deadline_s)
        self._batcher.put(request)
        return request.future

    def stop(self, drain_s: float) -> None:
        """Take no more requests, finish those queued for at most `drain_s` seconds, fail the rest, end the workers."""
        was_running, self._running = self._running, False
        self._stopping.set()
        self._batcher.close()
        give_up = self._clock() + drain_s
        if was_running:
            for thread in self._threads:
                thread.join(max(0.0, give_up - self._clock()))
        self._over.set()
        self._batcher.drop_all()
        late = [thread for thread in self._threads if thread.is_alive()]
        for worker, thread in zip(self.pool.workers, self._threads, strict=True):
            if thread in late:
                worker.abort()
            else:
                worker.close()
        give_up = self._clock() + _LONGEST_END_S
        for thread in late:
            thread.join(max(0.0, give_up - self._clock()))
