"""The engine: image files go into a bounded queue, workers take batches, and what comes of each image is its answer."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from service.engine.errors import EngineStopped, NoWorker, Overloaded
from service.engine.health import Health
from service.engine.inference_cost import InferenceCost
from service.engine.job import Outcome, PendingJob
from service.engine.objective import Objective
from service.engine.probing import Probing
from service.engine.queueing.budget_limit import BudgetLimit, Pressure
from service.engine.queueing.scheduler import Scheduler
from service.engine.results import Results
from service.engine.workers.pool import WorkerPool
from service.engine.workers.supervisor import Supervisor, Surroundings

# How often the model is run for a first guess of the objective.
_GUESSES = 5
# How long to wait for those who waited for a worker that was ended to be told so, in seconds.
_LONGEST_END_S = 1.0


class Engine:
    """Runs images on the workers of a pool. It lives on an event loop: no thread stands between it and the workers.

    Preparing (decoding) happens in the workers too, so that neither a slow nor a hostile image holds up the service.

    Args:
        pool: of workers; they are started and closed with the engine.
        capacity: most requests queued.
        longest_s: deadline of requests, in seconds; some have less.
        on_batch: told the size of every batch that ran.
        on_loss: told why, whenever a worker is lost: "died" or "stuck".
        on_overload: told when an overload begins, and at the first request after it has ended.
        clock: seconds that never go back, the same in all workers.
        objective_s: within what time an answer is worth most, in seconds; None to measure it.
        budgets: shares of the network that images may be limited to, falling from 1, see `BudgetLimit`.

    Attributes:
        cost: what inference takes, as far as it has been seen.
        objective: within what time an answer is worth most.
        limit: how much of the network an image may have now.
        leaving: whether it will soon be stopped.
    """

    def __init__(
        self,
        pool: WorkerPool,
        capacity: int,
        longest_s: float = math.inf,
        on_batch: Callable[[int], None] = lambda _: None,
        on_loss: Callable[[str], None] = lambda _: None,
        on_overload: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        objective_s: float | None = math.inf,
        budgets: Sequence[float] = (1.0,),
    ) -> None:
        self.pool = pool
        self._clock = clock
        self.objective = Objective(objective_s)
        self.limit = BudgetLimit(budgets, clock)
        self._scheduler = Scheduler(capacity, pool.tuning.policy, clock, longest_s, on_overload, self.objective)
        self._health = Health()
        self.cost = InferenceCost()
        self._running = self.leaving = False
        self._stopping, self._over, self._rested = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._around = Surroundings(
            scheduler=self._scheduler,
            results=Results(self._health, on_batch, self.cost, self.objective, pool.tuning.policy.max_wait_ms / 1000),
            on_loss=on_loss,
            on_rest=self._rested.set,
            on_failed_start=self._give_up_waiting,
            stopping=self._stopping,
            over=self._over,
        )
        self._supervisors = [Supervisor(worker, self._around) for worker in pool.workers]
        self._probing = Probing(self._health, self._supervisors)

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
        if self._scheduler.overloaded_for_long:
            return "the queue has been full for a while"
        return None

    @property
    def ready(self) -> bool:
        """Whether requests are taken and can be expected to be answered."""
        return self.problem is None

    @property
    def queue_depth(self) -> int:
        """Requests waiting for a worker."""
        return len(self._scheduler)

    @property
    def queue_capacity(self) -> int:
        """Most requests that may wait."""
        return self._scheduler.capacity

    def pids(self) -> dict[str, int]:
        """The processes that there are now: this one, and those of workers that have their own."""
        workers = {f"worker-{number}": worker.pid for number, worker in enumerate(self.pool.workers)}
        return {"server": os.getpid()} | {name: pid for name, pid in workers.items() if pid is not None}

    async def start(self) -> None:
        """Run the model on one image and on a full batch, then take requests. Other workers may still be starting.

        Raises:
            ArtifactError, EngineError: the model does not run here.
        """
        first, *others = self._supervisors
        await first.open()
        for batch_size in {1, self.pool.tuning.policy.max_batch}:
            await first.check(batch_size)
        if self.objective.is_measured:
            await self._guess_objective(first)
        first.serve()
        for supervisor in others:
            supervisor.revive()
        self._probing.begin()
        self._running = True

    async def _guess_objective(self, first: Supervisor) -> None:
        taken_s = []
        for _ in range(_GUESSES):
            begun_at = self._clock()
            await first.check(1)
            taken_s.append(self._clock() - begun_at)
        self.objective.guess(max(taken_s))

    def require_room(self) -> None:
        """Return if an image would be accepted now; asked before one is received.

        Raises:
            Overloaded: the queue is full.
            NoWorker: there is none that could run it, and one could not be started.
            EngineStopped: the engine is not running.
        """
        self._require_workers()
        try:
            self._scheduler.require_room()
        except Overloaded:
            self._note_arrival()
            raise

    @property
    def wait_s(self) -> float:
        """How long an image that came now would wait, in seconds, as far as that is known."""
        return self._scheduler.wait_s

    def _note_arrival(self) -> None:
        if not self.limit.is_fixed:
            self.limit.note_arrival(self._pressure)

    @property
    def _pressure(self) -> Pressure:
        scheduler = self._scheduler
        return Pressure(
            scheduler.wait_s, scheduler.overloaded, self.objective.seconds, scheduler.workers, self._image_s
        )

    def _image_s(self, share: float) -> float:
        """Seconds that a worker would take for an image of this share: as now, but for the inference."""
        total = self.pool.manifest.total_macs
        now_s, then_s = self.cost.seconds(self.limit.share * total), self.cost.seconds(share * total)
        return max(0.0, self._scheduler.job_s + then_s - now_s)

    def submit(
        self,
        image: bytes,
        deadline_s: float,
        answered: Callable[[Outcome], None],
        follows: bool = False,
        dear: bool = False,
        gate_offset: float = 0.0,
        is_tensor: bool = False,
    ) -> PendingJob:
        """Queue an image, to be answered within `deadline_s` seconds. It goes to an idle worker at once.

        Args:
            image: the image file, or what the network takes of an image.
            deadline_s: how long its answer is of any worth.
            answered: called on the loop with what came of it, unless it was withdrawn before a worker had it.
            follows: whether an earlier image of the same request was accepted; then only a full queue refuses it.
            dear: whether it may take far longer than others; see `scheduler`.
            gate_offset: added to the margin of every gate: above 0 more blocks run, below fewer.
            is_tensor: whether `image` is no file; see `ImageJob`.

        Raises:
            Overloaded: the queue is full.
            NoWorker: there is none that could run it, and one could not be started.
            EngineStopped: the engine is not running.
        """
        self._require_workers()
        self._note_arrival()
        now = self._clock()
        expires = now + deadline_s
        job = PendingJob(image, now, expires, answered, gate_offset=gate_offset, dear=dear, is_tensor=is_tensor)
        self._scheduler.submit(job, follows)
        return job

    def leave(self) -> None:
        """Say that it will soon be stopped: it is not ready any more, but takes what still comes."""
        self.leaving = True

    async def stop(self, drain_s: float) -> None:
        """Take no more requests, finish those queued for at most `drain_s` seconds, fail the rest, end the workers."""
        self._running = False
        self._stopping.set()
        self._scheduler.close()
        await self._until(self._drained, drain_s)
        self._over.set()
        self._probing.end()
        self._scheduler.fail_all(EngineStopped())
        for supervisor in self._supervisors:
            if supervisor.busy or supervisor.starting:
                supervisor.worker.abort()
        await self._until(self._at_rest, _LONGEST_END_S)
        await asyncio.gather(*(supervisor.end() for supervisor in self._supervisors))

    def _require_workers(self) -> None:
        if not self._running:
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

    def _give_up_waiting(self) -> None:
        """Let nobody wait for workers that there may never be."""
        if (retry_s := self._without_workers_s) is not None:
            self._scheduler.fail_all(NoWorker(retry_s))

    def _drained(self) -> bool:
        """Whether nothing that was accepted will still be run."""
        nobody = all(supervisor.given_up for supervisor in self._supervisors)
        return nobody or not (self.queue_depth or any(supervisor.busy for supervisor in self._supervisors))

    def _at_rest(self) -> bool:
        return not any(supervisor.busy or supervisor.starting for supervisor in self._supervisors)

    async def _until(self, condition: Callable[[], bool], longest_s: float) -> None:
        """Wait until something is so, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                while not condition():
                    self._rested.clear()
                    await self._rested.wait()
