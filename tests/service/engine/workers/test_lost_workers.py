"""What the engine does about workers that die, hang, fail or cannot be started."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread

import pytest

from artifact.manifest import ArtifactError
from service.engine import probing
from service.engine.errors import EngineStopped, InferenceFailed, NoWorker, Overloaded, WorkerLost
from service.engine.job import Answered, ImageJob
from service.engine.queueing.scheduler import AHEAD_S
from service.engine.runtimes.tuning import BatchPolicy, Tuning
from service.engine.workers import supervisor as module
from service.engine.workers.base import Worker
from service.engine.workers.local import LocalWorker
from tests.processes import is_running
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_input, wait_until
from tests.service.engine.conftest import MakeEngine
from tests.service.engine.looped import Asked, LoopedEngine, echo_pool, engine_on
from tests.service.engine.queueing.desk import Clock
from tests.service.engine.workers.processes import MakeWorker

MakeEngineOn = Callable[..., LoopedEngine]


class ScriptedWorker:
    """A worker that a test kills, and whose starts fail when it says so.

    Attributes:
        alive: see `Worker`.
        problems: what the next starts raise.
        starts: how often it was started.
    """

    pid: int | None = None

    def __init__(self) -> None:
        self.alive = True
        self.problems: list[Exception] = []
        self.starts = 0
        self._inner = LocalWorker(EchoRuntime(), lambda image: echo_input(float(image)))

    def start(self) -> None:
        self.starts += 1
        if self.problems:
            raise self.problems.pop(0)
        self.alive = True

    async def connect(self, answered: Answered, lost: Callable[[str], None]) -> None:
        self._loop, self._answered, self._lost = asyncio.get_running_loop(), answered, lost

    def give(self, jobs: Sequence[ImageJob], /) -> bool:
        if self.alive:
            self._loop.call_soon(self._answered, self._inner.work(jobs))
        return self.alive

    def check(self, model: int, batch_size: int) -> bool:  # noqa: ARG002 (there is one)
        self._inner.check(batch_size)
        self._loop.call_soon(self._answered, [])
        return self.alive

    def die(self) -> None:
        """End by itself."""
        self.alive = False
        self._loop.call_soon_threadsafe(self._lost, "died")

    def abort(self) -> None:
        self.die()

    def disconnect(self) -> None:
        pass

    def close(self) -> None:
        self.alive = False


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_PULSE_S", 0.01)
    monkeypatch.setattr(module, "_FIRST_RETRY_S", 0.01)


@pytest.fixture
def losses() -> list[str]:
    """Why workers were lost."""
    return []


@pytest.fixture
def make_engine_on(losses: list[str], request: pytest.FixtureRequest) -> Iterator[MakeEngineOn]:
    """Started engines on workers, each taking one image at a time; they are stopped at the end."""
    request.getfixturevalue("make_worker")  # made before, so that they are ended after their engines
    engines = []

    def make(*workers: Worker) -> LoopedEngine:
        tuning = Tuning(BatchPolicy(len(workers), max_batch=1, max_wait_ms=0))
        engines.append(LoopedEngine(engine_on(echo_pool(tuning, workers), 100, on_loss=losses.append)))
        engines[-1].start()
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def _submit(engine: LoopedEngine, *payloads: str) -> list[Asked]:
    return engine.submit_together([payload.encode() for payload in payloads], PATIENCE_S)


def _ask(engine: LoopedEngine, payload: str) -> float:
    (asked,) = _submit(engine, payload)
    return float(asked.result(PATIENCE_S).logits[0])


def _failure(engine: LoopedEngine, payload: str) -> BaseException | None:
    (asked,) = _submit(engine, payload)
    return asked.exception(PATIENCE_S)


def test_worker_that_dies_idle_is_noticed_and_started_again(
    make_engine_on: MakeEngineOn, make_worker: MakeWorker, losses: list[str]
) -> None:
    worker = make_worker()
    engine = make_engine_on(worker)
    lost = worker.pid
    assert lost is not None
    os.kill(lost, signal.SIGKILL)
    wait_until(lambda: worker.alive and worker.pid != lost)
    wait_until(lambda: losses == ["died"])  # told a moment after the worker is seen dead
    assert _ask(engine, "5") == 5.0


def test_image_that_kills_its_worker_fails_alone(
    make_engine_on: MakeEngineOn, make_worker: MakeWorker, losses: list[str]
) -> None:
    engine = make_engine_on(make_worker())
    before, deadly, after = _submit(engine, "1", "die", "2")
    assert [float(future.result(PATIENCE_S).logits[0]) for future in (before, after)] == [1.0, 2.0]
    failure = deadly.exception(PATIENCE_S)
    assert isinstance(failure, WorkerLost)
    assert failure.reason == "died"
    assert losses == ["died"]


def test_stuck_worker_is_replaced(make_engine_on: MakeEngineOn, make_worker: MakeWorker, losses: list[str]) -> None:
    worker = make_worker(stuck_s=2.0)
    engine = make_engine_on(worker)
    lost = worker.pid
    assert lost is not None
    failure = _failure(engine, "hang")
    assert isinstance(failure, WorkerLost)
    assert failure.reason == "stuck"
    assert _ask(engine, "5") == 5.0
    assert losses == ["stuck"]
    assert not is_running(lost)


def test_others_go_on_while_a_worker_hangs(make_engine_on: MakeEngineOn, make_worker: MakeWorker) -> None:
    workers = [make_worker(), make_worker()]
    engine = make_engine_on(*workers)
    wait_until(lambda: all(worker.alive for worker in workers))
    (hanging,) = _submit(engine, "hang")
    time.sleep(10 * AHEAD_S)  # no longer is it nearly done, as far as can be told
    others = _submit(engine, *map(str, range(20)))
    assert [float(future.result(PATIENCE_S).logits[0]) for future in others] == list(range(20))
    assert not hanging.done()
    assert engine.ready
    for worker in workers:  # one of which hangs
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    assert isinstance(hanging.exception(PATIENCE_S), WorkerLost)


def test_stopping_answers_everybody_even_if_a_worker_hangs(
    make_engine_on: MakeEngineOn, make_worker: MakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker()
    engine = make_engine_on(worker)
    lost = worker.pid
    assert lost is not None
    running, *queued = _submit(engine, "hang", "1", "2")
    wait_until(lambda: engine.queue_depth < 3)  # the first is running, and the next may have been sent ahead
    engine.stop(drain_s=0.1)
    assert isinstance(running.exception(timeout=0), WorkerLost)
    assert [type(future.exception(timeout=0)) for future in queued] == [EngineStopped, EngineStopped]
    assert not is_running(lost)
    # No other is started in its place, nor is that tried.
    assert worker.pid is None
    assert "cannot be started" not in caplog.text


def test_worker_that_is_lost_while_stopping_is_started_again_for_what_was_accepted(
    make_engine_on: MakeEngineOn, make_worker: MakeWorker
) -> None:
    engine = make_engine_on(make_worker(stuck_s=2.0))
    running, *queued = _submit(engine, "hang", "1", "2")
    wait_until(lambda: engine.queue_depth < 3)  # the first is running, and the next may have been sent ahead
    engine.stop(PATIENCE_S)
    assert isinstance(running.exception(timeout=0), WorkerLost)
    assert [float(future.result(timeout=0).logits[0]) for future in queued] == [1.0, 2.0]


def test_start_that_fails_is_tried_again(make_engine_on: MakeEngineOn, caplog: pytest.LogCaptureFixture) -> None:
    worker = ScriptedWorker()
    engine = make_engine_on(worker)
    worker.problems = [ArtifactError("the model is damaged"), WorkerLost("died"), RuntimeError("no more threads")]
    worker.die()
    wait_until(lambda: worker.alive)
    assert _ask(engine, "5") == 5.0
    assert worker.starts == 5
    assert caplog.messages.count("a worker cannot be started: the model is damaged") == 1
    (unexpected,) = [record for record in caplog.records if record.exc_info]
    assert "no more threads" in str(unexpected.exc_info)
    assert engine.ready


def test_images_wait_for_a_worker_that_died_idle_and_is_started_again(
    make_engine_on: MakeEngineOn, losses: list[str]
) -> None:
    worker = ScriptedWorker()
    engine = make_engine_on(worker)
    assert _ask(engine, "1") == 1.0
    worker.alive = False  # which nobody has been told yet
    assert engine.problem == "no worker is running"
    waiting = _submit(engine, "2", "3")
    worker.die()
    assert [float(asked.result(PATIENCE_S).logits[0]) for asked in waiting] == [2.0, 3.0]
    assert losses == ["died"]


def test_nobody_waits_for_a_worker_that_could_not_be_started_again(
    make_engine_on: MakeEngineOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_RETRY_S", 0.2)
    worker = ScriptedWorker()
    engine = make_engine_on(worker)
    worker.problems = [ArtifactError("the model is damaged")]
    worker.alive = False
    (waiting,) = _submit(engine, "1")
    worker.die()
    with pytest.raises(NoWorker) as caught:
        waiting.result(PATIENCE_S)
    assert caught.value.retry_after_s == 0.2
    with pytest.raises(NoWorker):
        _ask(engine, "2")
    wait_until(lambda: worker.starts == 3)
    wait_until(lambda: engine.problem is None)
    assert _ask(engine, "3") == 3.0


def test_stopping_does_not_wait_for_a_worker_that_cannot_be_started(
    make_engine_on: MakeEngineOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_RETRY_S", PATIENCE_S)
    worker = ScriptedWorker()
    engine = make_engine_on(worker)
    worker.problems = [ArtifactError("the model is damaged")] * 3
    worker.die()
    wait_until(lambda: worker.starts == 2)
    stopping = Thread(target=engine.stop, args=(PATIENCE_S,))
    stopping.start()
    stopping.join(PATIENCE_S / 2)
    assert not stopping.is_alive()


def test_service_is_not_ready_while_inference_fails_and_finds_out_by_itself_when_it_works_again(
    make_engine: MakeEngine, runtime: EchoRuntime
) -> None:
    engine = make_engine()
    engine.start()
    runtime.poison = {0.0, 1.0, 2.0, 3.0}
    for value in (1.0, 2.0):
        assert isinstance(engine.submit(value, PATIENCE_S).exception(PATIENCE_S), InferenceFailed)
    assert engine.ready
    assert isinstance(engine.submit(3.0, PATIENCE_S).exception(PATIENCE_S), InferenceFailed)
    assert engine.problem == "the last inferences failed"
    probes = len(runtime.batches)
    wait_until(lambda: len(runtime.batches) > probes)  # it tries, and must see that nothing has changed
    assert not engine.ready
    runtime.poison = set()
    wait_until(lambda: engine.ready)


def test_image_that_is_none_says_nothing_about_the_model(make_engine: MakeEngine) -> None:
    def prepare(_: float) -> None:
        raise ValueError("no image")

    engine = make_engine(prepare=prepare)
    engine.start()
    for _ in range(10):
        assert isinstance(engine.submit(1.0, PATIENCE_S).exception(PATIENCE_S), ValueError)
    assert engine.ready


def test_service_is_not_ready_once_it_has_refused_for_long(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    clock = Clock()
    engine = make_engine(capacity=1, clock=clock)
    engine.start()
    runtime.hold()
    running = engine.submit(1.0, PATIENCE_S)
    runtime.wait_until_running()
    engine.submit(2.0, PATIENCE_S)
    for _ in range(10):
        with pytest.raises(Overloaded):
            engine.submit(3.0, PATIENCE_S)
        assert engine.ready
        clock.now += 0.5
    with pytest.raises(Overloaded):
        engine.submit(3.0, PATIENCE_S)
    assert engine.problem == "the queue has been full for a while"
    assert not engine.ready
    clock.now += 1.0  # a calm
    assert engine.ready
    runtime.release()
    running.result(PATIENCE_S)


def test_burst_leaves_the_service_ready(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    clock = Clock()
    engine = make_engine(capacity=1, clock=clock)
    engine.start()
    runtime.hold()
    engine.submit(1.0, PATIENCE_S)
    runtime.wait_until_running()
    engine.submit(2.0, PATIENCE_S)
    for _ in range(10):  # each a burst of its own, with a calm in between
        with pytest.raises(Overloaded):
            engine.submit(3.0, PATIENCE_S)
        assert engine.ready
        clock.now += 1.0


def test_processes_are_told_by_name(make_engine_on: MakeEngineOn, make_worker: MakeWorker) -> None:
    workers = [make_worker(), make_worker()]
    engine = make_engine_on(*workers)
    wait_until(lambda: all(worker.alive for worker in workers))
    assert engine.engine.crew.pids() == {"server": os.getpid(), "worker-0": workers[0].pid, "worker-1": workers[1].pid}
    engine.stop(PATIENCE_S)
    assert engine.engine.crew.pids() == {"server": os.getpid()}


def test_readiness_can_be_asked_for_while_workers_come_and_go(
    make_engine_on: MakeEngineOn, make_worker: MakeWorker
) -> None:
    engine = make_engine_on(make_worker())
    over = Event()
    surprises: list[Exception] = []

    def ask() -> None:
        while not over.is_set():
            try:
                _ = engine.problem, engine.engine.crew.pids()
            except Exception as error:  # what must not be
                surprises.append(error)

    asking = Thread(target=ask)
    asking.start()
    for _ in range(3):
        assert isinstance(_failure(engine, "die"), WorkerLost)
    assert _ask(engine, "1") == 1.0
    over.set()
    asking.join(PATIENCE_S)
    assert surprises == []
