"""What a replica of the engine has: models that are opened when they are asked for, each on workers of its own."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.manifest import read_manifest
from service.engine.crew import Crew
from service.engine.engine import Engine
from service.engine.errors import EngineStopped, NoWorker, WorkerLost
from service.engine.ipc.codec import Check, OutcomeCodec, unpack_jobs
from service.engine.ipc.frames import unframed
from service.engine.job import Answer, ImageJob, Outcome, PendingJob
from service.engine.workers.pool import Model, WorkerPool
from service.images.decoding import IMAGE_ERRORS
from service.images.workers import begin_pool
from service.settings import Settings

_log = logging.getLogger("service.ray")

# How long a model is kept that nobody asks for any more, in seconds. While a version is replaced by another, those who
# take requests ask for the one or for the other, each of them once a second.
_KEPT_S = 60.0
# Whoever sends images knows how many may wait: here none is refused.
_NO_LIMIT = 1_000_000_000

NOBODY = b""
"""What a replica answers that has no worker for a batch, so that another has to run it."""


class _Running:
    """A model that runs on workers. A batch that comes is what one worker runs: it is neither cut nor added to.

    Args:
        pool: the workers.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self.crew = Crew(pool.workers)
        self.engine = Engine(self.crew, pool.model, _NO_LIMIT, math.inf)
        self.engine.lane.count_on(1)  # to whom a batch goes
        self._codec = OutcomeCodec(pool.model.manifest, IMAGE_ERRORS)
        self._idle = asyncio.Semaphore(len(pool.workers))
        self._workshop = pool.workshop

    async def run(self, frame: bytes, came_at: float) -> bytes:
        jobs = unpack_jobs(unframed(frame))
        if isinstance(jobs, Check):
            raise ValueError("a check is for those who start workers")
        async with self._idle:
            try:
                self.crew.require_workers()
            except (EngineStopped, NoWorker):
                return NOBODY
            outcomes = await self._run(jobs, came_at)
        return self._codec.pack(outcomes)

    async def stop(self, drain_s: float) -> None:
        await self.crew.stop(drain_s)
        if self._workshop:
            await asyncio.to_thread(self._workshop.close)

    async def _run(self, jobs: Sequence[ImageJob], came_at: float) -> list[Outcome]:
        """What comes of jobs whose deadlines are told in seconds after they came."""
        told: list[asyncio.Future[Outcome]] = [asyncio.get_running_loop().create_future() for _ in jobs]
        batch = [
            PendingJob(
                job.image,
                came_at,
                came_at + job.deadline,
                answered.set_result,
                gate_offset=job.gate_offset,
                dear=job.dear,
                model=self.engine.model.number,
                is_tensor=job.is_tensor,
            )
            for job, answered in zip(jobs, told, strict=True)
        ]
        self.engine.lane.submit_batch(batch)
        # Not cancelled with the call: a worker that has the batch goes on with it, and has no time for another.
        outcomes = await asyncio.shield(asyncio.gather(*told))
        return [_within(outcome, len(jobs)) for outcome in outcomes]


def _within(outcome: Outcome, jobs: int) -> Outcome:
    """An outcome as those who asked know it.

    It tells nothing of other calls; two may run together while there are fewer workers than usual. And that this
    replica has no workers left says nothing of the service.
    """
    if isinstance(outcome, EngineStopped | NoWorker):
        return WorkerLost("died")
    if isinstance(outcome, Answer) and outcome.batch_size > jobs:
        return outcome._replace(batch_size=jobs)
    return outcome


@dataclass
class _Asked:
    """A model that was asked for.

    Attributes:
        opening: ends when it runs, or cannot.
        at: when it was asked for last.
    """

    opening: asyncio.Task[_Running]
    at: float

    @property
    def running(self) -> _Running | None:
        done = self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None
        return self.opening.result() if done else None


class Engines:
    """The models of one replica, by the folder of each. It lives on an event loop.

    Args:
        settings: of the service; its model is kept whether or not anybody asks for it.
        clock: seconds that never go back.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, folder: str) -> Model:
        """Have a model run here, if it does not yet.

        Raises:
            ArtifactError, EngineError: it cannot.
        """
        return (await self._running(folder)).engine.model

    def workers(self, folder: str) -> int:
        """How many workers can run a model here now. Where there are none it is opened meanwhile."""
        self._forget()
        running = self._ask(folder).running
        return sum(worker.alive for worker in running.crew.workers) if running else 0

    async def run(self, folder: str, frame: bytes) -> bytes:
        """What comes of a batch, both as frames, see `Run` of `RemoteWorker`; or `NOBODY`.

        Raises:
            ArtifactError, EngineError: the model cannot be run.
        """
        came_at = time.monotonic()  # before it waits for the model to be opened
        return await (await self._running(folder)).run(frame, came_at)

    @property
    def problem(self) -> str | None:
        """Why the model of the settings cannot be run here; None where it can."""
        running = self._ask(str(self._settings.model)).running
        return running.engine.problem if running else None

    async def close(self) -> None:
        """Finish what is in progress, and end all workers."""
        closing = [self._close(*each) for each in self._asked.items()]
        self._asked = {}
        await asyncio.gather(*closing, *self._closing)

    async def _running(self, folder: str) -> _Running:
        return await asyncio.shield(self._ask(folder).opening)  # others wait for it as well

    def _ask(self, folder: str) -> _Asked:
        """The model; it is opened where it was not, and again where that was tried in vain."""
        asked = self._asked.get(folder)
        if asked is None or (asked.opening.done() and not asked.running):
            opening = asyncio.get_running_loop().create_task(self._open(folder))
            asked = self._asked[folder] = _Asked(opening, self._clock())
        asked.at = self._clock()
        return asked

    async def _open(self, folder: str) -> _Running:
        running = _Running(await asyncio.to_thread(self._pool, Path(folder)))
        await running.crew.start()
        runtime, workers = running.engine.model.runtime, len(running.crew.workers)
        _log.info("%s runs in %s on %s, %d workers", folder, runtime.name, runtime.device, workers)
        return running

    def _pool(self, folder: Path) -> WorkerPool:
        return begin_pool(self._settings, folder, read_manifest(folder))()

    def _forget(self) -> None:
        """Close what nobody asks for any more."""
        for folder, asked in [*self._asked.items()]:
            is_old = self._clock() - asked.at > _KEPT_S and asked.opening.done()
            if is_old and folder != str(self._settings.model):
                del self._asked[folder]
                closing = asyncio.get_running_loop().create_task(self._close(folder, asked))
                self._closing.add(closing)  # a task that nobody holds may vanish
                closing.add_done_callback(self._closing.discard)

    async def _close(self, folder: str, asked: _Asked) -> None:
        await asyncio.wait([asked.opening])
        if asked.running:
            await asked.running.stop(self._settings.drain_seconds)
            _log.info("%s runs no more", folder)
