"""What is done for one worker until the engine stops: it is kept alive, and given work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Generic

from artifact.manifest import ArtifactError
from service.engine.batcher import Batcher
from service.engine.errors import EngineError, EngineStopped, InferenceFailed, WorkerLost
from service.engine.health import Health
from service.engine.request import PayloadT, PendingRequest
from service.engine.worker import Answer, Job, Outcome, Worker

_log = logging.getLogger(__name__)

# How often an idle worker is looked after, in seconds.
_PULSE_S = 0.5
# How long to wait before another try to start a worker that could not be started; it doubles up to the longest.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.5, 30.0


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


@dataclass(frozen=True)
class Surroundings(Generic[PayloadT]):
    """What the caretakers of an engine share.

    Attributes:
        batcher: hands out the work.
        health: is told what comes of it.
        on_batch: told the size of every batch that ran.
        on_loss: told why, whenever a worker is lost.
        clock: seconds that never go back.
        stopping: set when no more work is taken.
        over: set when what is left is given up.
    """

    batcher: Batcher[PayloadT, Answer]
    health: Health
    on_batch: Callable[[int], None]
    on_loss: Callable[[str], None]
    clock: Callable[[], float]
    stopping: Event
    over: Event


class Caretaker(Generic[PayloadT]):
    """Has a thread to itself.

    Args:
        worker: that it takes care of.
        around: what it shares with the others.
    """

    def __init__(self, worker: Worker[PayloadT], around: Surroundings[PayloadT]) -> None:
        self._worker = worker
        self._around = around

    def run(self) -> None:
        """Keep the worker alive and give it work, until the engine stops."""
        worker, around = self._worker, self._around
        following: _Batch[PayloadT] | None = None
        while worker.busy or self._kept_alive(following):
            batch, following = following or self._taken(), None
            if batch is None:
                break
            if around.over.is_set() and not worker.alive:  # it was ended
                following = batch
                break
            if not (worker.alive or worker.busy or self._replaced(batch)):
                continue
            if batch.requests:
                ahead = around.batcher.take_ahead() if worker.takes_ahead else []
                following = self._batch(ahead) if ahead else None
                self._run(batch, following)
            elif around.health.failing:
                self._probe()
        if following:
            self._answer(following, [EngineStopped()] * len(following.requests))
        worker.close()

    def _taken(self) -> _Batch[PayloadT] | None:
        requests = self._around.batcher.take(_PULSE_S)
        return None if requests is None else self._batch(requests)

    def _batch(self, requests: list[PendingRequest[PayloadT, Answer]]) -> _Batch[PayloadT]:
        batch = _Batch(requests)
        batch.begin(self._around.clock())
        return batch

    def _kept_alive(self, following: _Batch[PayloadT] | None) -> bool:
        """Start a worker that is not alive, trying again until it is; False when the engine stops before.

        What follows then begins anew.
        """
        retry_s = _FIRST_RETRY_S
        if self._worker.died and not self._around.over.is_set():
            self._around.on_loss("died")
        while not self._worker.alive:
            if self._around.over.is_set():
                return False
            if self._started():
                if following:
                    following.begin(self._around.clock())
            else:
                if self._around.stopping.wait(retry_s):
                    return False
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        return True

    def _replaced(self, batch: _Batch[PayloadT]) -> bool:
        """Start a worker that died while it had nothing to do, for which its next batch need not pay if it can be."""
        self._around.on_loss("died")
        if not self._started():
            self._answer(batch, [WorkerLost("died")] * len(batch.requests))
            return False
        batch.begin(self._around.clock())
        return True

    def _started(self) -> bool:
        """Start the worker, and say whether that could be done."""
        try:
            self._worker.start()
        except (ArtifactError, EngineError) as error:
            _log.error("a worker cannot be started: %s", error)
            return False
        return True

    def _run(self, batch: _Batch[PayloadT], following: _Batch[PayloadT] | None) -> None:
        """Run a batch and answer its requests; the worker may begin with the one that follows."""
        outcomes: list[Outcome]
        try:
            outcomes = self._worker.work(batch.jobs, following.jobs if following else ())
        except WorkerLost as loss:
            self._around.on_loss(loss.reason)
            outcomes = [loss] * len(batch.requests)
        except Exception as error:  # this thread must not end by it: nobody else gives this worker work
            outcomes = [error] * len(batch.requests)
        now = self._around.clock()
        self._answer(batch, outcomes)
        self._around.batcher.note_speed(now - batch.begun, len(batch.requests))
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
            self._around.on_batch(sizes[0])
            del sizes[: sizes[0]]
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self._around.health.note(succeeded=True)
            elif isinstance(outcome, InferenceFailed | WorkerLost):
                self._around.health.note(succeeded=False)

    def _probe(self) -> None:
        """See whether the model runs again; nobody may be sending images, because the service is not ready."""
        try:
            self._worker.check(1)
        except WorkerLost as loss:
            self._around.on_loss(loss.reason)
        except InferenceFailed:
            pass
        else:
            self._around.health.note(succeeded=True)
