"""The engine: requests go into a bounded queue, worker threads take batches, prepare and run them, and answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Generic

import numpy as np
import numpy.typing as npt

from artifact.preprocessing import Float32Array
from service.engine.batcher import Batcher
from service.engine.errors import DeadlineExceeded, EngineStopped, InferenceFailed
from service.engine.request import PayloadT, PendingRequest
from service.engine.runtime import Runtime
from service.engine.tuning import Tuning

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What came out for one image.

    Attributes:
        logits: (classes,).
        margins: (G,) of the gates.
        executed: (B,) which blocks ran.
        macs: multiply-accumulates spent.
        batch_size: images that ran together with this one, itself included.
        decode_s, queue_s, inference_s: seconds spent preparing it, waiting, and running its batch.
    """

    logits: Float32Array
    margins: Float32Array
    executed: npt.NDArray[np.bool_]
    macs: int
    batch_size: int
    decode_s: float
    queue_s: float
    inference_s: float


@dataclass(frozen=True)
class _Prepared(Generic[PayloadT]):
    request: PendingRequest[PayloadT, Answer]
    images: Float32Array  # (1, 3, H, W)
    decode_s: float
    queue_s: float


class Engine(Generic[PayloadT]):
    """Runs requests on a runtime.

    Preparing (decoding) happens on the worker threads too, so a request changes threads once, and a GPU is fed by
    as many decoding threads as there are workers.

    Args:
        runtime: runs the model.
        prepare: from a payload to one network input (3, H, W); what it raises becomes that request's answer.
        tuning: how batches form.
        capacity: most requests queued.
        on_batch: told the size of every batch that ran.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        runtime: Runtime,
        prepare: Callable[[PayloadT], Float32Array],
        tuning: Tuning,
        capacity: int,
        on_batch: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runtime = runtime
        self.tuning = tuning
        self._prepare = prepare
        self._on_batch = on_batch
        self._clock = clock
        self._batcher: Batcher[PayloadT, Answer] = Batcher(capacity, tuning.policy, clock)
        self._threads = [
            Thread(target=self._work, name=f"engine-{number}", daemon=True) for number in range(tuning.policy.workers)
        ]
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the model has run and requests are taken."""
        return self._ready

    @property
    def queue_depth(self) -> int:
        """Requests waiting for a worker."""
        return len(self._batcher)

    @property
    def queue_capacity(self) -> int:
        """Most requests that may wait."""
        return self._batcher.capacity

    def start(self) -> None:
        """Run the model on one image and on a full batch of which half the gates are open, then start the workers.

        Raises:
            InferenceFailed: the model does not run here.
        """
        manifest = self.runtime.manifest
        for batch_size in {1, self.tuning.policy.max_batch}:
            images = np.zeros((batch_size, 3, manifest.input_size, manifest.input_size), np.float32)
            try:
                self.runtime.run(images, np.resize(np.array([1e4, -1e4], np.float32), batch_size))
            except Exception as error:  # whatever a runtime raises
                raise InferenceFailed from error
        for thread in self._threads:
            thread.start()
        self._ready = True

    def require_room(self) -> None:
        """Return where a payload would be taken now; asked before one is even received.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the engine is not running.
        """
        if not self._ready:
            raise EngineStopped
        self._batcher.require_room()

    def submit(self, payload: PayloadT, deadline_s: float) -> Future[Answer]:
        """Queue a payload, to be answered within `deadline_s` seconds. Cancelling the future withdraws it.

        Raises:
            Overloaded: the queue is full.
            EngineStopped: the engine is not running.
        """
        if not self._ready:
            raise EngineStopped
        now = self._clock()
        request: PendingRequest[PayloadT, Answer] = PendingRequest(payload, now, now + deadline_s)
        self._batcher.put(request)
        return request.future

    def stop(self, drain_s: float) -> None:
        """Take no more requests, finish those queued for at most `drain_s` seconds, and fail the rest."""
        was_ready, self._ready = self._ready, False
        self._batcher.close()
        if not was_ready:
            return
        give_up = self._clock() + drain_s
        for thread in self._threads:
            thread.join(max(0.0, give_up - self._clock()))
        self._batcher.drop_all()

    def _work(self) -> None:
        """What a worker thread does until the engine stops."""
        while (batch := self._batcher.take()) is not None:
            started = self._clock()
            prepared = [ready for request in batch if (ready := self._prepared(request, started))]
            if prepared:
                self._run(prepared)
            self._batcher.note_speed(self._clock() - started, len(batch))

    def _prepared(self, request: PendingRequest[PayloadT, Answer], taken_at: float) -> _Prepared[PayloadT] | None:
        """Prepare one request; a failure is its own answer and nobody else's."""
        started = self._clock()
        if request.deadline <= started:  # those before it in the batch took too long
            request.future.set_exception(DeadlineExceeded())
            return None
        try:
            images = self._prepare(request.payload)[None]
        except Exception as error:  # bad input comes in endless kinds; the caller tells them apart
            request.future.set_exception(error)
            return None
        return _Prepared(request, images, self._clock() - started, taken_at - request.queued_at)

    def _run(self, batch: list[_Prepared[PayloadT]]) -> None:
        """Run a batch and answer its requests; where it fails as a whole, each image gets a second try alone."""
        started = self._clock()
        offsets = np.zeros(len(batch), np.float32)
        try:
            images = np.concatenate([prepared.images for prepared in batch])
            logits, margins = self.runtime.run(images, offsets)
            executed = self.runtime.manifest.executed(margins, offsets)
            macs = self.runtime.manifest.spent_macs(executed)
        except Exception as error:  # whatever a runtime raises
            if len(batch) > 1:
                _log.warning("a batch of %d failed; running its images one by one", len(batch), exc_info=error)
                for prepared in batch:
                    self._run([prepared])
                return
            _log.error("inference failed", exc_info=error)
            failure = InferenceFailed()
            failure.__cause__ = error
            batch[0].request.future.set_exception(failure)
            return
        inference_s = self._clock() - started
        self._on_batch(len(batch))
        for row, prepared in enumerate(batch):
            answer = Answer(
                logits=logits[row],
                margins=margins[row],
                executed=executed[row],
                macs=int(macs[row]),
                batch_size=len(batch),
                decode_s=prepared.decode_s,
                queue_s=prepared.queue_s,
                inference_s=inference_s,
            )
            prepared.request.future.set_result(answer)
