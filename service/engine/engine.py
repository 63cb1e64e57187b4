"""The engine of a model: images go into a bounded queue, workers take batches, and what comes of each is its answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from service.engine.crew import Crew
from service.engine.errors import Overloaded
from service.engine.health import Health
from service.engine.inference_cost import InferenceCost
from service.engine.job import Outcome, PendingJob
from service.engine.objective import Objective
from service.engine.queueing.budget_limit import WHOLE, BudgetLimit, Step
from service.engine.queueing.slot import Batch
from service.engine.results import Results
from service.engine.workers.pool import Model
from service.engine.workers.supervisor import Supervisor

# How often the model is run for a first guess of the objective.
_GUESSES = 5


class Engine:
    """Runs images of one model on workers that may run others too. It lives on their event loop.

    Preparing (decoding) happens in the workers too, so that neither a slow nor a hostile image holds up the service.

    Args:
        crew: of workers that run the model.
        model: that is run.
        capacity: most requests queued.
        longest_s: deadline of requests, in seconds; some have less.
        on_batch: told the size of every batch that ran.
        on_overload: told when an overload begins, and at the first request after it has ended.
        objective_s: within what time an answer is worth most, in seconds; None to measure it.
        steps: what images may be limited to, falling from `WHOLE`, see `BudgetLimit`.
        weight: how large its part of the workers' time is where others want some too.

    Attributes:
        cost: what inference takes, as far as it has been seen.
        objective: within what time an answer is worth most.
        limit: how much of the network images have.
        health: whether inference works.
        lane: what waits for a worker.
        requests: how many may still submit images.
    """

    def __init__(
        self,
        crew: Crew,
        model: Model,
        capacity: int,
        longest_s: float = math.inf,
        on_batch: Callable[[int], None] = lambda _: None,
        on_overload: Callable[[bool], None] = lambda _: None,
        objective_s: float | None = math.inf,
        steps: Sequence[Step] = (WHOLE,),
        weight: float = 1.0,
    ) -> None:
        self.crew, self.model = crew, model
        self._clock = crew.clock
        self.requests = 0
        self.objective = Objective(objective_s)
        self.cost, self.health = InferenceCost(), Health()
        self.limit = BudgetLimit(steps, model.manifest.total_macs, self.cost, self.objective, crew.clock)
        policy = replace(model.tuning.policy, workers=len(crew.workers))
        limit = self.limit if len(steps) > 1 else None
        self.lane = crew.scheduler.open_lane(
            model.number, capacity, policy, longest_s, on_overload, self.objective, weight, limit
        )
        self._results = Results(self.health, on_batch, self.cost, self.objective, policy.max_wait_ms / 1000)
        crew.enlist(model.number, self)

    @property
    def problem(self) -> str | None:
        """Why no request should be sent here now; None where the model is ready."""
        if (problem := self.crew.problem) is not None:
            return problem
        if self.lane.closed:
            return "unloading"
        if self.health.failing:
            return "the last inferences failed"
        if self.lane.overloaded_for_long:
            return "the queue has been full for a while"
        return None

    @property
    def ready(self) -> bool:
        """Whether requests are taken and can be expected to be answered."""
        return self.problem is None

    @property
    def queue_depth(self) -> int:
        """Requests waiting for a worker."""
        return len(self.lane)

    @property
    def queue_capacity(self) -> int:
        """Most requests that may wait."""
        return self.lane.capacity

    @property
    def wait_s(self) -> float:
        """How long an image that came now would wait, in seconds, as far as that is known."""
        return self.lane.wait_s

    @property
    def idle(self) -> bool:
        """Whether nothing waits, and a worker has nothing to do."""
        return not self.queue_depth and self.crew.scheduler.some_idle

    async def warm_up(self, supervisor: Supervisor) -> None:
        """Have a worker that has nothing to do run the model on one image and on a full batch.

        Raises:
            InferenceFailed, WorkerLost: it does not run.
        """
        for batch_size in {1, self.model.tuning.policy.max_batch}:
            await supervisor.check(self.model.number, batch_size)
        if self.objective.is_measured and self.objective.seconds == math.inf:
            taken_s = []
            for _ in range(_GUESSES):
                begun_at = self._clock()
                await supervisor.check(self.model.number, 1)
                taken_s.append(self._clock() - begun_at)
            self.objective.guess(max(taken_s))

    def tell(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Answer the jobs of a batch."""
        self._results.tell(batch, outcomes)

    @contextmanager
    def expected(self) -> Iterator[None]:
        """While a request is received and run: before it ends, the model does not go, as far as there is time."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self.crew.note_end_of_request()

    def require_room(self) -> None:
        """Return if an image would be accepted now; asked before one is received.

        Raises:
            Overloaded: the queue is full.
            NoWorker: there is none that could run it, and one could not be started.
            EngineStopped: the engine is not running.
        """
        self.crew.require_workers()
        try:
            self.lane.require_room()
        except Overloaded:
            self.limit.note_arrival()
            raise

    def submit(
        self,
        image: bytes,
        deadline_s: float,
        answered: Callable[[Outcome], None],
        follows: bool = False,
        dear: bool = False,
        gate_offset: float = 0.0,
        is_tensor: bool = False,
        may_degrade: bool = False,
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
            may_degrade: whether it may have less compute than that, see `BudgetLimit`.

        Raises:
            Overloaded: the queue is full.
            NoWorker: there is none that could run it, and one could not be started.
            EngineStopped: the engine is not running.
        """
        self.crew.require_workers()
        self.limit.note_arrival()
        now = self._clock()
        job = PendingJob(
            image,
            now,
            now + deadline_s,
            answered,
            gate_offset=gate_offset,
            dear=dear,
            is_tensor=is_tensor,
            may_degrade=may_degrade,
            model=self.model.number,
        )
        self.lane.submit(job, follows)
        return job
