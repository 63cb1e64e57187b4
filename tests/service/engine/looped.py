"""The engine and its workers on an event loop of their own, used by tests from any thread without waiting for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, TypeVar

import uvloop

from service.engine.crew import Crew
from service.engine.engine import Engine
from service.engine.errors import WorkerLost
from service.engine.job import Answer, ImageJob, Outcome, PendingJob
from service.engine.runtimes.base import description
from service.engine.runtimes.tuning import Tuning
from service.engine.workers.base import Worker
from service.engine.workers.pool import Model, WorkerPool
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_manifest

T = TypeVar("T")


def echo_pool(tuning: Tuning, workers: Sequence[Worker]) -> WorkerPool:
    """Workers that are said to run the echo model."""
    return WorkerPool(Model(0, Path(), echo_manifest(), description(EchoRuntime()), tuning), workers)


def engine_on(
    pool: WorkerPool,
    capacity: int,
    longest_s: float = math.inf,
    *,
    clock: Callable[[], float] = time.monotonic,
    on_loss: Callable[[str], None] = lambda _: None,
    **arguments: Any,
) -> Engine:
    """An engine that has the workers of a pool to itself."""
    return Engine(Crew(pool.workers, on_loss, clock), pool.model, capacity, longest_s, **arguments)


class Loop:
    """An event loop in a thread, of the kind that the service runs on."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T]) -> T:
        """Call something on the loop."""

        async def done() -> T:
            return work()

        return self.wait_for(done())

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the loop that takes a while."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE_S)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self.wait_for(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _cancel(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Asked(Future[Answer]):
    """What comes of a request."""

    pending: PendingJob

    def take(self, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

    def withdraw(self) -> None:
        self.pending.withdraw()


class LoopedEngine:
    """An engine whose methods wait until they are done; a number is the image of that number.

    Args:
        engine: that is used.
        beside: another whose crew it shares, and so its loop.
    """

    def __init__(self, engine: Engine, beside: LoopedEngine | None = None) -> None:
        self.engine = engine
        self._loop = beside._loop if beside else Loop()

    @property
    def problem(self) -> str | None:
        return self.engine.problem

    @property
    def ready(self) -> bool:
        return self.engine.ready

    @property
    def queue_depth(self) -> int:
        return self.engine.queue_depth

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something on its loop."""
        return self._loop.begin(work)

    def start(self) -> None:
        self._loop.wait_for(self.engine.crew.start())

    def submit(self, image: bytes | float, deadline_s: float) -> Asked:
        (asked,) = self.submit_together([image], deadline_s)
        return asked

    def submit_together(self, images: Sequence[bytes | float], deadline_s: float) -> list[Asked]:
        """Submit several before anything comes of any of them."""

        def submit() -> list[Asked]:
            every = []
            for image in images:
                asked = Asked()
                file = image if isinstance(image, bytes) else repr(image).encode()
                asked.pending = self.engine.submit(file, deadline_s, asked.take)
                every.append(asked)
            return every

        return self._loop.do(submit)

    def require_room(self) -> None:
        self._loop.do(self.engine.require_room)

    def stop(self, drain_s: float) -> None:
        self._loop.wait_for(self.engine.crew.stop(drain_s))

    def close(self) -> None:
        """Stop it, and its loop."""
        self.stop(0)
        self._loop.close()


class Master:
    """Has a worker work, as the engine does, and waits for what comes of it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.loop = Loop()
        self._came: Queue[list[Outcome] | WorkerLost] = Queue()

    def connect(self) -> None:
        self.loop.wait_for(self.worker.connect(self._came.put, lambda reason: self._came.put(WorkerLost(reason))))

    def start(self) -> None:
        """Start the worker and connect it."""
        self.worker.start()
        self.connect()

    def give(self, jobs: Sequence[ImageJob]) -> bool:
        return self.loop.do(lambda: self.worker.give(jobs))

    def answer(self) -> list[Outcome]:
        """What came next.

        Raises:
            WorkerLost: the worker was lost.
        """
        came = self._came.get(timeout=PATIENCE_S)
        if isinstance(came, WorkerLost):
            self.loop.do(self.worker.disconnect)
            raise came
        return came

    def work(self, jobs: Sequence[ImageJob]) -> list[Outcome]:
        """What comes of a batch."""
        assert self.give(jobs)
        return self.answer()

    def check(self, batch_size: int) -> list[Outcome]:
        """What comes of a check."""
        assert self.loop.do(lambda: self.worker.check(0, batch_size))
        return self.answer()

    def nothing_came(self) -> bool:
        return self._came.empty()

    def close(self) -> None:
        """End the worker and the loop."""
        self.loop.do(self.worker.disconnect)
        self.worker.abort()
        self.worker.close()
        self.loop.close()
