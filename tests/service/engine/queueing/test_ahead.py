"""What the engine does with batches that it has sent ahead of the worker's answer to the one before."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from artifact.manifest import ArtifactError
from service.engine.job import Answer, Answered, ImageJob, Outcome
from service.engine.queueing import scheduler
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from service.engine.workers import supervisor
from service.engine.workers.local import LocalWorker
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_input
from tests.service.engine.looped import echo_pool, engine_on
from tests.service.engine.queueing.desk import Clock

_BATCH_S, _START_S = 5.0, 100.0


class ForesightedWorker:
    """Takes batches ahead as a process does: dies as soon as it gets to a deadly image, and has only one at a time.

    Attributes:
        deadly: images it dies of, each once.
        problems: what the next starts raise.
        given: every batch it was given, and how many it had then, this one included.
    """

    pid: int | None = None

    def __init__(self, clock: Clock) -> None:
        self.alive = True
        self.deadly: set[bytes] = set()
        self.problems: list[Exception] = []
        self.given: list[tuple[list[bytes], int]] = []
        self._has: deque[Sequence[ImageJob]] = deque()
        self._clock = clock
        self._inner = LocalWorker(EchoRuntime(), lambda image: echo_input(float(image)), clock)

    def start(self) -> None:
        if self.problems:
            raise self.problems.pop(0)
        if not self.alive:
            self._clock.now += _START_S
        self.alive = True

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:
        self._answered, self._lost = answered, lost

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        if self.alive:
            self._has.append(jobs)
            self.given.append(([job.image for job in jobs], len(self._has)))
        return self.alive

    def check(self, model: int, batch_size: int) -> bool:  # noqa: ARG002 (there is one)
        self._inner.check(batch_size)
        asyncio.get_running_loop().call_soon(self._answered, [])
        return self.alive

    def run_next(self) -> None:
        """Run what it was given first."""
        jobs = self._has.popleft()
        outcomes = self._inner.work(jobs)
        self._clock.now += _BATCH_S
        if met := self.deadly & {job.image for job in jobs}:
            self.deadly -= met
            self.die()
        else:
            self._answered(outcomes)

    def die(self) -> None:
        """End by itself, and have that noticed."""
        self.alive = False
        self._has.clear()
        self._lost("died")

    def abort(self) -> None:
        if self.alive:
            self.die()

    def disconnect(self) -> None:
        pass

    def close(self) -> None:
        self.alive = False


class Bench:
    """An engine with one such worker that takes one image at a time, on an event loop and a clock that a test moves.

    Attributes:
        losses: why workers were lost.
    """

    def __init__(self, clock: Clock) -> None:
        self.losses: list[str] = []
        self.clock = clock
        self.worker = ForesightedWorker(clock)
        pool = echo_pool(Tuning(BatchPolicy(1, 1, 0)), [self.worker])
        self.engine = engine_on(pool, 100, on_loss=self.losses.append, clock=clock)
        self._outcomes: dict[int, Outcome] = {}

    def submit(self, count: int, within: float = 1000.0) -> None:
        """Images 0, 1, 2, …: when the first is submitted, there are no others."""
        for number in range(count):
            self.engine.submit(str(number).encode(), within, partial(self._outcomes.__setitem__, number))

    async def run(self, batches: int) -> None:
        """Have the worker run so many batches, each when it has been given it."""
        for _ in range(batches):
            await until(lambda: len(self.worker._has) > 0)
            self.worker.run_next()

    @property
    def outcomes(self) -> list[float | str]:
        """What came of every image so far."""
        told = [self._outcomes[number] for number in sorted(self._outcomes)]
        return [float(one.logits[0]) if isinstance(one, Answer) else type(one).__name__ for one in told]

    @property
    def waits_s(self) -> list[float]:
        """How long the images that ran had waited."""
        return [one.queue_s for _, one in sorted(self._outcomes.items()) if isinstance(one, Answer)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def started(bench: Bench) -> AsyncIterator[None]:
    await bench.engine.crew.start()
    yield
    await bench.engine.crew.stop(0)


@pytest.fixture
def bench(clock: Clock) -> Bench:
    return Bench(clock)


def run_all(bench: Bench, count: int) -> None:
    """Submit so many requests at once, and run them all."""

    async def scenario() -> None:
        async with started(bench):
            bench.submit(count)
            await bench.run(count)

    asyncio.run(scenario())


def test_next_batch_is_sent_before_the_one_before_it_is_done(bench: Bench) -> None:
    run_all(bench, 4)
    assert bench.outcomes == [0.0, 1.0, 2.0, 3.0]
    # When the first was begun, nothing was known of the others. A batch takes longer than what is sent ahead may take.
    assert bench.worker.given == [([b"0"], 1), ([b"1"], 1), ([b"2"], 2), ([b"3"], 2)]


def test_as_many_short_batches_are_sent_ahead_as_keep_the_worker_busy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "AHEAD_S", 2.5 * _BATCH_S)

    run_all(bench, 8)
    assert bench.outcomes == [float(number) for number in range(8)]
    assert [had for _, had in bench.worker.given] == [1, 1, 2, 3, 4, 4, 4, 4]


def test_one_batch_is_sent_ahead_as_long_as_nobody_knows_how_long_it_takes(bench: Bench) -> None:
    async def scenario() -> None:
        async with started(bench):
            bench.worker.die()
            bench.submit(6)  # before it is started again
            await until(lambda: bench.worker.alive)
            await bench.run(1)

    asyncio.run(scenario())
    assert [had for _, had in bench.worker.given[:2]] == [1, 2]
    assert len(bench.worker.given) == 3


def test_loss_costs_only_what_ran_and_what_was_sent_ahead_is_sent_again(bench: Bench) -> None:
    bench.worker.deadly = {b"1"}

    run_all(bench, 4)
    assert bench.outcomes == [0.0, "WorkerLost", 2.0, 3.0]
    assert bench.worker.given == [([b"0"], 1), ([b"1"], 1), ([b"2"], 2), ([b"2"], 1), ([b"3"], 2)]
    assert bench.losses == ["died"]


def test_loss_by_what_was_sent_ahead_is_charged_to_that(bench: Bench) -> None:
    bench.worker.deadly = {b"2"}

    run_all(bench, 4)
    assert bench.outcomes == [0.0, 1.0, "WorkerLost", 3.0]
    assert bench.losses == ["died"]


def test_what_was_sent_ahead_of_a_worker_that_cannot_be_started_is_told_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_RETRY_S", PATIENCE_S)
    bench.worker.deadly = {b"1"}

    async def scenario() -> None:
        async with started(bench):
            bench.submit(4)
            bench.worker.problems = [ArtifactError("the model is damaged")] * 10
            await bench.run(2)
            await until(lambda: len(bench.worker.problems) < 10)
            assert bench.outcomes == [0.0, "WorkerLost", "NoWorker", "NoWorker"]
            await bench.engine.crew.stop(PATIENCE_S)

    asyncio.run(scenario())


def test_wait_behind_the_batch_before_is_time_in_the_queue(bench: Bench) -> None:
    run_all(bench, 4)
    assert bench.waits_s == [0.0, 5.0, 10.0, 15.0]


def test_wait_for_another_worker_is_time_in_the_queue(bench: Bench) -> None:
    bench.worker.deadly = {b"1"}

    run_all(bench, 4)
    assert bench.waits_s == [0.0, 110.0, 115.0]


def test_what_was_sent_ahead_is_not_run_when_another_worker_comes_too_late(bench: Bench) -> None:
    bench.worker.deadly = {b"1"}

    async def scenario() -> None:
        async with started(bench):
            bench.submit(4, within=50.0)
            await bench.run(2)
            await until(lambda: len(bench.outcomes) == 4)

    asyncio.run(scenario())
    assert bench.outcomes == [0.0, "WorkerLost", "DeadlineExceeded", "DeadlineExceeded"]


def test_worker_that_is_found_dead_is_given_nothing_that_it_could_lose(bench: Bench) -> None:
    async def scenario() -> None:
        async with started(bench):
            bench.worker.alive = False  # and nobody has been told
            bench.submit(2)
            await asyncio.sleep(0)
            assert bench.engine.queue_depth == 2
            bench.worker.die()
            await bench.run(2)

    asyncio.run(scenario())
    assert bench.outcomes == [0.0, 1.0]
    assert bench.losses == ["died"]


def test_worker_that_dies_before_it_can_be_sent_what_follows_has_died_and_its_answer_counts(bench: Bench) -> None:
    async def scenario() -> None:
        async with started(bench):
            bench.submit(4)
            await bench.run(1)
            bench.worker.alive = False  # and it has 1 and 2
            await bench.run(1)
            assert bench.engine.queue_depth == 1
            bench.worker.die()
            await bench.run(1)

    asyncio.run(scenario())
    assert bench.outcomes == [0.0, 1.0, "WorkerLost", 3.0]


def test_death_between_two_batches_is_counted_once(bench: Bench) -> None:
    async def scenario() -> None:
        async with started(bench):
            for number in range(1, 4):
                bench.worker.die()
                await until(lambda: bench.worker.alive)
                bench.submit(1)
                await bench.run(1)
                assert bench.losses == ["died"] * number

    asyncio.run(scenario())
    assert bench.outcomes == [0.0]
