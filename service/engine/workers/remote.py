"""A worker elsewhere: batches go to it as frames of bytes, by whatever means there are, and outcomes come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import replace

from service.engine.errors import InferenceFailed, WorkerLost
from service.engine.ipc.codec import OutcomeCodec, pack_jobs
from service.engine.ipc.frames import unframed
from service.engine.job import Answer, Answered, ImageJob, Outcome

Run = Callable[[bytes], Awaitable[bytes]]
"""Has a frame of jobs run and returns that of their outcomes, see `ipc.codec`; raises WorkerLost where that is lost.

The times of the jobs are in seconds from now: clocks of other machines tell others.
"""


_Away = tuple[asyncio.Task[list[Outcome] | WorkerLost], bool]
"""A batch that is away, and whether it is a check."""


class RemoteWorker:
    """See `Worker`. A batch is on its way at once, even while the one before it runs.

    Args:
        run: the work, of one model.
        codec: of its outcomes.
        side: of the images that the network takes, in pixels.
        stuck_s: longest time a batch may be away, in seconds; what takes longer is lost.
        is_there: whether anybody is there to run it, as far as that is known.
        clock: the one that the jobs' times are told in.
    """

    pid: int | None = None

    def __init__(
        self,
        run: Run,
        codec: OutcomeCodec,
        side: int,
        stuck_s: float,
        is_there: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._codec = codec
        self._black = bytes(3 * side * side * 4)
        self._stuck_s = stuck_s
        self._is_there = is_there
        self._clock = clock
        self._away: asyncio.Queue[_Away] = asyncio.Queue()
        self._telling: asyncio.Task[None] | None = None
        self._lost: Callable[[str], None] = lambda _: None

    @property
    def alive(self) -> bool:
        """Whether anybody is there."""
        return self._is_there()

    def start(self) -> None:
        """Do nothing: others start what runs elsewhere."""

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:
        """Begin to tell what comes back."""
        self._away, self._lost = asyncio.Queue(), lost
        self._telling = asyncio.get_running_loop().create_task(self._tell(self._away, answered), context=Context())

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        """Give it a batch."""
        return self._send(jobs, is_check=False)

    def check(self, model: int, batch_size: int) -> bool:
        """Have it run a model once, on black images."""
        now = self._clock()
        job = ImageJob(self._black, now, now + self._stuck_s, model=model, is_tensor=True)
        return self._send([job] * batch_size, is_check=True)

    def abort(self) -> None:
        """Wait for nothing any more."""
        if self._telling is not None:
            self.disconnect()
            asyncio.get_running_loop().call_soon(self._lost, "died")

    def disconnect(self) -> None:
        """Call back what is away."""
        telling, self._telling = self._telling, None
        if telling:
            telling.cancel()
            while not self._away.empty():
                self._away.get_nowait()[0].cancel()

    def close(self) -> None:
        """Do nothing: others end what runs elsewhere."""

    def _send(self, jobs: Sequence[ImageJob], is_check: bool) -> bool:
        if self._telling is None:
            return False
        now = self._clock()
        told = [replace(job, queued_at=job.queued_at - now, deadline=job.deadline - now) for job in jobs]
        # In a context of its own: this may be called in that of a request, with which it has nothing to do.
        work = asyncio.get_running_loop().create_task(self._outcomes(pack_jobs(told), jobs), context=Context())
        self._away.put_nowait((work, is_check))
        return True

    async def _outcomes(self, frame: bytes, jobs: Sequence[ImageJob]) -> list[Outcome] | WorkerLost:
        """What comes of a batch; all that an image did not take for itself it has waited, on the way too."""
        try:
            async with asyncio.timeout(self._stuck_s):
                outcomes = self._codec.unpack(unframed(await self._run(frame)), len(jobs))
        except TimeoutError:
            return WorkerLost("stuck")
        except WorkerLost as loss:
            return loss
        except Exception as error:  # whatever it is that carries frames
            return [error] * len(jobs)
        now = self._clock()
        for place, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True)):
            if isinstance(outcome, Answer):
                waited_s = now - job.queued_at - outcome.decode_s - outcome.inference_s
                outcomes[place] = outcome._replace(queue_s=max(0.0, waited_s))
        return outcomes

    async def _tell(self, away: asyncio.Queue[_Away], answered: Answered) -> None:
        """Tell what comes of batches, in the order in which they were given."""
        while True:
            work, is_check = await away.get()
            try:
                outcomes = await work
            except asyncio.CancelledError:
                work.cancel()
                raise
            if isinstance(outcomes, WorkerLost):
                self.disconnect()
                self._lost(outcomes.reason)
                return
            if is_check:  # black images are right, so it is the model that failed
                failed = any(isinstance(outcome, Exception) for outcome in outcomes)
                answered([InferenceFailed()] if failed else [])
            else:
                answered(outcomes)
