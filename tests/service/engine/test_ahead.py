"""What the engine does with a batch that it has sent ahead of the worker's answer to the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from threading import Semaphore

import pytest

from artifact.manifest import ArtifactError
from service.engine import caretaker as module
from service.engine.batcher import BatchPolicy
from service.engine.engine import Engine
from service.engine.errors import DeadlineExceeded, EngineStopped, WorkerLost
from service.engine.pool import WorkerPool
from service.engine.runtime import description
from service.engine.tuning import Tuning
from service.engine.worker import Answer, Job, LocalWorker, Outcome
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_input, echo_manifest, wait_until
from tests.service.engine.queueing import Clock

_BATCH_S, _START_S = 5.0, 100.0


class ForesightedWorker:
    """Takes batches ahead as a process does: dies as soon as it gets to a deadly image, asked for it or not.

    Attributes:
        dead: whether it has died, and has not been started again.
        deadly: images it dies of, each once.
        problems: what the next starts raise.
        asked: every batch it was asked for, what was to follow, and whether it had it already.
    """

    pid: int | None = None
    takes_ahead = True

    def __init__(self, clock: Clock) -> None:
        self.dead = self._lost = False
        self.deadly: set[bytes] = set()
        self.problems: list[Exception] = []
        self.asked: list[tuple[list[bytes], list[bytes], bool]] = []
        self._ahead: Sequence[Job[bytes]] = ()
        self._clock = clock
        self._inner = LocalWorker[bytes](EchoRuntime(), lambda payload: echo_input(float(payload)), clock)
        self._asked = Semaphore(0)
        self._turns = Semaphore(0)

    @property
    def alive(self) -> bool:
        return not self.dead and not self._lost

    @property
    def died(self) -> bool:
        return self.dead

    @property
    def busy(self) -> bool:
        return bool(self._ahead)

    def wait_until_asked(self) -> None:
        assert self._asked.acquire(timeout=PATIENCE_S)

    def let(self, batches: int) -> None:
        """Allow it to run so many batches."""
        self._turns.release(batches)

    def start(self) -> None:
        self._lost, self.dead = True, False
        if self.problems:
            raise self.problems.pop(0)
        self._clock.now += _START_S
        self._lost = False

    def work(self, jobs: Sequence[Job[bytes]], following: Sequence[Job[bytes]] = (), /) -> list[Outcome]:
        had, self._ahead = self._ahead is jobs, ()
        self.asked.append(([job.payload for job in jobs], [job.payload for job in following], had))
        self._asked.release()
        assert self._turns.acquire(timeout=PATIENCE_S)
        self._clock.now += _BATCH_S
        self._meet(jobs)
        if self.dead:
            self._lost, self.dead = True, False
            raise WorkerLost("died")
        self._meet(following)
        self._ahead = following
        return self._inner.work(jobs)

    def _meet(self, jobs: Sequence[Job[bytes]]) -> None:
        if met := self.deadly & {job.payload for job in jobs}:
            self.deadly -= met
            self.dead = True

    def check(self, batch_size: int) -> None:
        self._inner.check(batch_size)

    def abort(self) -> None:
        self.let(100)

    def close(self) -> None:
        pass


MakeEngineOn = Callable[[ForesightedWorker], Engine[bytes]]


@pytest.fixture
def losses() -> list[str]:
    """Why workers were lost."""
    return []


@pytest.fixture
def worker(clock: Clock) -> ForesightedWorker:
    return ForesightedWorker(clock)


@pytest.fixture
def engine(
    clock: Clock, worker: ForesightedWorker, losses: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine[bytes]]:
    """Started, with one worker that takes one image at a time."""
    monkeypatch.setattr(module, "_PULSE_S", 0.01)
    pool = WorkerPool(echo_manifest(), description(EchoRuntime()), Tuning(BatchPolicy(1, 1, 0)), [worker])
    engine = Engine(pool, 100, on_loss=losses.append, clock=clock)
    engine.start()
    yield engine
    engine.stop(0)


def _submit(engine: Engine[bytes], worker: ForesightedWorker, within: float = 1000.0) -> list[Future[Answer]]:
    """Images 0 to 3, of which the worker has been asked for the first only, before there were others."""
    futures = [engine.submit(b"0", 1000.0)]
    worker.wait_until_asked()
    return futures + [engine.submit(payload, within) for payload in (b"1", b"2", b"3")]


def _outcome(future: Future[Answer]) -> float | str:
    failure = future.exception(PATIENCE_S)
    return float(future.result().logits[0]) if failure is None else type(failure).__name__


def test_batch_sent_ahead_is_the_next_that_the_same_worker_is_asked_for(
    engine: Engine[bytes], worker: ForesightedWorker
) -> None:
    futures = _submit(engine, worker)
    worker.let(4)
    assert [_outcome(future) for future in futures] == [0.0, 1.0, 2.0, 3.0]
    assert worker.asked == [
        ([b"0"], [], False),
        ([b"1"], [b"2"], False),
        ([b"2"], [b"3"], True),
        ([b"3"], [], True),
    ]


def test_loss_costs_only_what_ran_and_what_was_sent_ahead_is_sent_again(
    engine: Engine[bytes], worker: ForesightedWorker, losses: list[str]
) -> None:
    worker.deadly = {b"1"}
    futures = _submit(engine, worker)
    worker.let(4)
    assert [_outcome(future) for future in futures] == [0.0, "WorkerLost", 2.0, 3.0]
    assert worker.asked[1:3] == [([b"1"], [b"2"], False), ([b"2"], [b"3"], False)]
    assert losses == ["died"]


def test_loss_by_what_was_sent_ahead_is_charged_to_that(
    engine: Engine[bytes], worker: ForesightedWorker, losses: list[str]
) -> None:
    worker.deadly = {b"2"}  # it is dead before it is asked for it
    futures = _submit(engine, worker)
    worker.let(4)
    assert [_outcome(future) for future in futures] == [0.0, 1.0, "WorkerLost", 3.0]
    assert [had for _, _, had in worker.asked] == [False, False, True, False]
    assert losses == ["died"]


def test_what_was_sent_ahead_of_a_worker_that_cannot_be_started_is_told_that_the_engine_stops(
    engine: Engine[bytes], worker: ForesightedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_RETRY_S", PATIENCE_S)
    worker.deadly = {b"1"}
    worker.problems = [ArtifactError("the model is damaged")] * 10
    futures = _submit(engine, worker)
    worker.let(2)
    assert [_outcome(future) for future in futures[:2]] == [0.0, "WorkerLost"]
    wait_until(lambda: len(worker.problems) < 10)
    assert not futures[2].done()
    engine.stop(PATIENCE_S)
    assert [type(future.exception(timeout=0)) for future in futures[2:]] == [EngineStopped, EngineStopped]


def test_wait_behind_the_batch_before_is_time_in_the_queue(engine: Engine[bytes], worker: ForesightedWorker) -> None:
    futures = _submit(engine, worker)
    worker.let(4)
    assert [future.result(PATIENCE_S).queue_s for future in futures] == [0.0, 5.0, 10.0, 15.0]


def test_wait_for_another_worker_is_time_in_the_queue(engine: Engine[bytes], worker: ForesightedWorker) -> None:
    worker.deadly = {b"1"}
    futures = _submit(engine, worker)
    worker.let(4)
    assert [future.result(PATIENCE_S).queue_s for future in futures[2:]] == [110.0, 115.0]


def test_what_was_sent_ahead_is_not_run_when_another_worker_comes_too_late(
    engine: Engine[bytes], worker: ForesightedWorker
) -> None:
    worker.deadly = {b"1"}
    futures = _submit(engine, worker, within=50.0)
    worker.let(4)
    assert isinstance(futures[1].exception(PATIENCE_S), WorkerLost)
    assert [type(future.exception(PATIENCE_S)) for future in futures[2:]] == [DeadlineExceeded] * 2


def test_speed_is_measured_from_one_answer_to_the_next(
    engine: Engine[bytes], worker: ForesightedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[float, int]] = []
    monkeypatch.setattr(engine._batcher, "note_speed", lambda *speed: noted.append(speed))
    worker.deadly = {b"1"}
    for future in _submit(engine, worker):
        worker.let(1)
        future.exception(PATIENCE_S)
    engine.stop(PATIENCE_S)
    assert noted == [(5.0, 1)] * 4


def test_death_between_two_batches_is_counted_once(
    engine: Engine[bytes], worker: ForesightedWorker, losses: list[str]
) -> None:
    worker.let(100)
    for number in range(1, 4):
        worker.dead = True
        wait_until(lambda: worker.alive)
        assert _outcome(engine.submit(b"7", 1000.0)) == 7.0
        assert losses == ["died"] * number
