"""The workers of all models: started, kept running, replaced when there are other models to run, and ended."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from service.engine.errors import EngineStopped, NoWorker
from service.engine.health import Health
from service.engine.job import Outcome
from service.engine.probing import Probing
from service.engine.queueing.lane import Lane
from service.engine.queueing.scheduler import Scheduler
from service.engine.queueing.slot import Batch
from service.engine.workers.base import Worker
from service.engine.workers.supervisor import Supervisor, Surroundings

# How long to wait for those who waited for a worker that was ended to be told so, in seconds.
_LONGEST_END_S = 1.0


class Runnable(Protocol):
    """A model that workers run: what the crew has to know of its engine."""

    health: Health
    lane: Lane

    @property
    def requests(self) -> int:
        """How many may still submit images."""

    async def warm_up(self, supervisor: Supervisor) -> None:
        """Have a worker that has nothing to do run the model.

        Raises:
            InferenceFailed, WorkerLost: it does not run.
        """

    def tell(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Take what has come of a batch."""


class Crew:
    """It lives on an event loop: no thread stands between it and the workers.

    Args:
        workers: are started and closed with the crew.
        on_loss: told why, whenever a worker is lost: "died" or "stuck".
        clock: seconds that never go back, the same in all workers.

    Attributes:
        scheduler: hands out the work.
        leaving: whether it will soon be stopped.
        on_leave: told so.
        on_failed_start: told whenever a worker that was lost cannot be started again.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        on_loss: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.scheduler = Scheduler(clock)
        self.running = self.leaving = self._stopping = False
        self.on_leave: Callable[[], None] = lambda: None
        self.on_failed_start: Callable[[], None] = lambda: None
        self._joining: Worker | None = None  # that is to replace another
        self._engines: dict[int, Runnable] = {}
        self._over, self._changed = asyncio.Event(), asyncio.Event()
        self._around = Surroundings(
            scheduler=self.scheduler,
            tell=self._tell,
            on_loss=on_loss,
            on_rest=self._changed.set,
            on_failed_start=self._note_failed_start,
            over=self._over,
        )
        self._supervisors = [Supervisor(worker, self._around) for worker in workers]
        self._probing = Probing(self._failing, lambda: self._supervisors)

    def enlist(self, model: int, engine: Runnable) -> None:
        """Have a model run by the workers, all of which can run it."""
        self._engines[model] = engine

    @property
    def workers(self) -> list[Worker]:
        """All of them, in service or not."""
        return [supervisor.worker for supervisor in self._supervisors]

    @property
    def problem(self) -> str | None:
        """Why nothing should be sent here now; None where there is no reason."""
        if not self.running:
            return "stopping" if self._stopping else "starting"
        if self.leaving:
            return "stopping"
        if not any(worker.alive for worker in self.workers):
            return "no worker is running"
        return None

    def pids(self) -> dict[str, int]:
        """The processes that there are now: this one, and those of workers that have their own."""
        workers = {f"worker-{number}": worker.pid for number, worker in enumerate(self.workers)}
        return {"server": os.getpid()} | {name: pid for name, pid in workers.items() if pid is not None}

    async def start(self) -> None:
        """Run every model on one worker, then take jobs. Other workers may still be starting.

        Raises:
            ArtifactError, EngineError: a model does not run here.
        """
        first, *others = self._supervisors
        await first.open()
        for engine in self._engines.values():
            await engine.warm_up(first)
        first.serve()
        for supervisor in others:
            supervisor.revive()
        self._probing.begin()
        self.running = True

    def leave(self) -> None:
        """Say that it will soon be stopped: it is not ready any more, but takes what still comes.

        Workers are not replaced any more.
        """
        self.leaving = True
        if worker := self._joining:
            worker.abort()
        self.on_leave()

    async def replace(self, make_worker: Callable[[], Worker], warm_up: Iterable[Runnable] = ()) -> None:
        """Replace every worker by another, one after the other; each begins before the one it replaces is ended.

        Args:
            make_worker: makes one that runs all models that have been enlisted.
            warm_up: models that each new one is to run before it is given anything.

        Raises:
            ArtifactError, EngineError: one cannot be started, or the crew leaves; those not replaced yet go on.
        """
        for old in [*self._supervisors]:
            if self.leaving or not self.running:
                raise EngineStopped
            new = await self._begun(make_worker(), warm_up)
            self._supervisors[self._supervisors.index(old)] = new
            old.retire()
            await self._until(lambda old=old: not (old.busy or old.starting))  # type: ignore[misc]
            await old.end()

    async def resize(self, count: int, make_worker: Callable[[], Worker]) -> None:
        """Have so many workers, at least one: begin others, or end the last ones when they have run what they have.

        Args:
            count: of the workers.
            make_worker: makes one that runs all models that have been enlisted.
        """
        if not self.running:
            return
        for _ in range(count - len(self._supervisors)):
            supervisor = Supervisor(make_worker(), self._around)
            self._supervisors.append(supervisor)
            supervisor.revive()
        leaving = self._supervisors[max(1, count) :]
        del self._supervisors[max(1, count) :]
        for engine in self._engines.values():
            engine.lane.count_on(len(self._supervisors))
        for supervisor in leaving:
            supervisor.retire()
        for supervisor in leaving:
            await self._until(lambda left=supervisor: not (left.busy or left.starting))  # type: ignore[misc]
            await supervisor.end()

    async def _begun(self, worker: Worker, warm_up: Iterable[Runnable]) -> Supervisor:
        """Have a worker begin that has run some models once."""
        self._joining, supervisor = worker, Supervisor(worker, self._around)
        opening = asyncio.ensure_future(supervisor.open())
        try:
            await asyncio.shield(opening)
            for engine in warm_up:
                await engine.warm_up(supervisor)
        except BaseException:
            worker.abort()
            with suppress(Exception):
                await opening  # a thread is at it, which nothing else may get in the way of
            await supervisor.end()
            raise
        finally:
            self._joining = None
        supervisor.serve()
        return supervisor

    async def dismiss(self, model: int, drain_s: float) -> None:
        """Finish the requests of a model for at most `drain_s` seconds, fail the rest, and have it run no more."""
        engine = self._engines[model]
        lane = engine.lane
        await self._until(lambda: not (engine.requests or len(lane)), drain_s)
        lane.close()
        lane.fail_all(EngineStopped())
        await self._until(lambda: not self.scheduler.runs(model))  # a worker that hangs is lost in the end
        self.scheduler.close_lane(lane)
        del self._engines[model]

    async def stop(self, drain_s: float) -> None:
        """Take no more jobs, finish those queued for at most `drain_s` seconds, fail the rest, end the workers."""
        self.running, self._stopping = False, True
        for supervisor in self._supervisors:
            supervisor.call_off()
        for engine in self._engines.values():
            engine.lane.close()
        await self._until(self._drained, drain_s)
        self._over.set()
        self._probing.end()
        self.scheduler.fail_all(EngineStopped())
        for supervisor in self._supervisors:
            if supervisor.busy or supervisor.starting:
                supervisor.worker.abort()
        await self._until(self._at_rest, _LONGEST_END_S)
        await asyncio.gather(*(supervisor.end() for supervisor in self._supervisors))

    def note_end_of_request(self) -> None:
        """Look whether that is what somebody waits for."""
        self._changed.set()

    def require_workers(self) -> None:
        """Return if there is anybody to give a job to.

        Raises:
            NoWorker: there is none that could run it, and one could not be started.
            EngineStopped: the crew is not running.
        """
        if not self.running:
            raise EngineStopped
        if (retry_s := self._without_workers_s) is not None:
            raise NoWorker(retry_s)

    @property
    def _without_workers_s(self) -> float | None:
        """How long there will be no worker, in seconds; None where one is alive, or may be any moment."""
        soonest_s = math.inf
        for supervisor in self._supervisors:
            if supervisor.retry_s is None:
                return None
            soonest_s = min(soonest_s, supervisor.retry_s)
        return soonest_s

    def _tell(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        if batch:
            self._engines[batch[0].model].tell(batch, outcomes)
        self._changed.set()  # a worker that always has something to do never rests

    def _failing(self) -> dict[int, Health]:
        return {model: engine.health for model, engine in self._engines.items() if engine.health.failing}

    def _note_failed_start(self) -> None:
        """Let nobody wait for workers that there may never be."""
        self.on_failed_start()
        if (retry_s := self._without_workers_s) is not None:
            self.scheduler.fail_all(NoWorker(retry_s))

    def _drained(self) -> bool:
        """Whether nothing that was accepted will still be run."""
        nobody = all(supervisor.given_up for supervisor in self._supervisors)
        return nobody or not (len(self.scheduler) or any(supervisor.busy for supervisor in self._supervisors))

    def _at_rest(self) -> bool:
        return not any(supervisor.busy or supervisor.starting for supervisor in self._supervisors)

    async def _until(self, condition: Callable[[], bool], longest_s: float = math.inf) -> None:
        """Wait until something is so, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if longest_s == math.inf else longest_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
