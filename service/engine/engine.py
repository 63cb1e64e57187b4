"""The engine: requests go into a bounded queue, workers take batches, and what comes of each request is its answer."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Generic

from artifact.manifest import ArtifactError
from service.engine.batcher import Batcher
from service.engine.errors import EngineError, EngineStopped, InferenceFailed, WorkerLost
from service.engine.health import Health
from service.engine.pool import WorkerPool
from service.engine.request import PayloadT, PendingRequest
from service.engine.worker import Answer, Job, Outcome, Worker

_log = logging.getLogger(__name__)

# How often an idle worker is looked after, in seconds.
_PULSE_S = 0.5
# How long to wait before another try to start a worker that could not be started; it doubles up to the longest.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0
# How long to wait for those who waited for a worker that was ended to be told so, in seconds.
_LONGEST_END_S = 1.0


@dataclass
class _Batch(Generic[PayloadT]):
    """Requests that run together.

    Attributes:
        requests: claimed from the queue.
        jobs: what a worker is told of them.
        begun: when a worker began with them, in seconds of the engine's clock.
    """

    requests: list[PendingRequest[PayloadT, Answer]]
    jobs: list[Job[PayloadT]] = field(init=False, default_factory=list)
    begun: float = field(init=False, default=0.0)

    def begin(self, now: float) -> None:
        """Note when a worker begins with them: until then they waited. It knows what it was sent ahead by its list."""
        self.begun = now
        self.jobs[:] = [Job(each.payload, each.deadline - now, now - each.queued_at) for each in self.requests]


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
        self._on_batch = on_batch
        self._on_loss = on_loss
        self._clock = clock
        self._batcher: Batcher[PayloadT, Answer] = Batcher(capacity, pool.tuning.policy, clock)
        self._health = Health()
        self._threads = [
            Thread(target=self._look_after, args=(worker,), name=f"engine-{number}", daemon=True)
            for number, worker in enumerate(pool.workers)
        ]
        self._running = False
        self._stopping = Event()
        self._over = Event()

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

    def _look_after(self, worker: Worker[PayloadT]) -> None:
        """What a worker's thread does until the engine stops: keep it alive, and give it work."""
        following: _Batch[PayloadT] | None = None
        while (worker.busy or self._kept_alive(worker, following)) and (
            batch := following or self._taken()
        ) is not None:
            following = None
            if not worker.alive and self._over.is_set():  # it was ended
                following = batch
                break
            if not (
                worker.alive or worker.busy
            ):  # it died while it had nothing to do, which its next batch need not pay for
                self._on_loss("died")
                if not self._started(worker):
                    self._answer(batch, [WorkerLost("died")] * len(batch.requests))
                    continue
                batch.begin(self._clock())
            if batch.requests:
                ahead = self._batcher.take_ahead() if worker.takes_ahead else []
                following = self._batch(ahead) if ahead else None
                self._run(worker, batch, following)
            elif self._health.failing:
                self._probe(worker)
        if following:
            self._answer(following, [EngineStopped()] * len(following.requests))
        worker.close()

    def _taken(self) -> _Batch[PayloadT] | None:
        requests = self._batcher.take(_PULSE_S)
        return None if requests is None else self._batch(requests)

    def _batch(self, requests: list[PendingRequest[PayloadT, Answer]]) -> _Batch[PayloadT]:
        batch = _Batch(requests)
        batch.begin(self._clock())
        return batch

    def _kept_alive(self, worker: Worker[PayloadT], following: _Batch[PayloadT] | None) -> bool:
        """Start a worker that is not alive, trying again until it is; False when the engine stops before.

        What follows then begins anew.
        """
        retry_s = _FIRST_RETRY_S
        if worker.died and not self._over.is_set():
            self._on_loss("died")
        while not worker.alive:
            if self._over.is_set():
                return False
            if self._started(worker):
                if following:
                    following.begin(self._clock())
            else:
                if self._stopping.wait(retry_s):
                    return False
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        return True

    def _started(self, worker: Worker[PayloadT]) -> bool:
        """Start a worker, and say whether that could be done."""
        try:
            worker.start()
        except (ArtifactError, EngineError) as error:
            _log.error("a worker cannot be started: %s", error)
            return False
        return True

    def _run(self, worker: Worker[PayloadT], batch: _Batch[PayloadT], following: _Batch[PayloadT] | None) -> None:
        """Run a batch and answer its requests; the worker may begin with the one that follows."""
        outcomes: list[Outcome]
        try:
            outcomes = worker.work(batch.jobs, following.jobs if following else ())
        except WorkerLost as loss:
            self._on_loss(loss.reason)
            outcomes = [loss] * len(batch.requests)
        except Exception as error:  # this thread must not end by it: nobody else gives this worker work
            outcomes = [error] * len(batch.requests)
        now = self._clock()
        self._answer(batch, outcomes)
        self._batcher.note_speed(now - batch.begun, len(batch.requests))
        if following:
            following.begin(now)

    def _answer(self, batch: _Batch[PayloadT], outcomes: list[Outcome]) -> None:
        self._note(outcomes)
        for request, outcome in zip(batch.requests, outcomes, strict=True):
            if isinstance(outcome, Exception):
                request.future.set_exception(outcome)
            else:
                request.future.set_result(outcome)

    def _note(self, outcomes: list[Outcome]) -> None:
        """Tell the health and the observer what ran."""
        sizes = [outcome.batch_size for outcome in outcomes if isinstance(outcome, Answer)]
        while sizes:
            self._on_batch(sizes[0])
            del sizes[: sizes[0]]
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self._health.note(succeeded=True)
            elif isinstance(outcome, InferenceFailed | WorkerLost):
                self._health.note(succeeded=False)

    def _probe(self, worker: Worker[PayloadT]) -> None:
        """See whether the model runs again; nobody may be sending images, because the service is not ready."""
        try:
            worker.check(1)
        except WorkerLost as loss:
            self._on_loss(loss.reason)
        except InferenceFailed:
            pass
        else:
            self._health.note(succeeded=True)
