"""Workers that are replaced while they are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from artifact.preprocessing import Float32Array
from service.engine.engine import Engine
from service.engine.errors import EngineStopped, RuntimeUnavailable
from service.engine.workers.local import LocalWorker
from service.engine.workers.pool import Model
from service.engine.workers.thread import ThreadWorker
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_input, wait_until
from tests.service.engine.conftest import MakeEngine
from tests.service.engine.looped import Asked, LoopedEngine


class _Unstartable(ThreadWorker):
    def start(self) -> None:
        raise RuntimeUnavailable("there is no such runtime")


def _worker(*runtimes: EchoRuntime) -> ThreadWorker:
    """One that runs several models, numbered in order."""
    return ThreadWorker(
        {
            number: LocalWorker(runtime, lambda image: echo_input(float(image)))
            for number, runtime in enumerate(runtimes)
        }
    )


def _beside(engine: LoopedEngine, make_worker: Callable[[], ThreadWorker]) -> LoopedEngine:
    """A second model on the crew of an engine, whose workers are replaced by such."""
    crew, source = engine.engine.crew, engine.engine.model
    model = Model(1, source.folder, source.manifest, source.runtime, source.tuning)
    second = LoopedEngine(Engine(crew, model, 100), engine)
    engine.begin(crew.replace(make_worker, [second.engine])).result(PATIENCE_S)
    return second


@pytest.fixture
def engine(make_engine: MakeEngine) -> LoopedEngine:
    engine = make_engine(workers=2)
    engine.start()
    return engine


def _value(asked: Asked) -> float:
    return float(asked.result(PATIENCE_S).logits[0])


def test_images_are_answered_while_workers_are_replaced(engine: LoopedEngine, runtime: EchoRuntime) -> None:
    crew, before = engine.engine.crew, engine.engine.crew.workers
    runtime.hold()
    running = engine.submit(1.0, PATIENCE_S)
    runtime.wait_until_running()
    replacing = engine.begin(crew.replace(lambda: _worker(EchoRuntime())))
    wait_until(lambda: not set(crew.workers) <= set(before))
    assert _value(engine.submit(2.0, PATIENCE_S)) == 2.0
    runtime.release()
    replacing.result(PATIENCE_S)
    assert _value(running) == 1.0
    assert len(crew.workers) == 2
    assert not set(before) & set(crew.workers)
    assert _value(engine.submit(3.0, PATIENCE_S)) == 3.0


def test_worker_that_cannot_be_started_replaces_nobody(engine: LoopedEngine) -> None:
    crew, before = engine.engine.crew, engine.engine.crew.workers
    with pytest.raises(RuntimeUnavailable):
        engine.begin(crew.replace(lambda: _Unstartable({}))).result(PATIENCE_S)
    assert crew.workers == before
    assert _value(engine.submit(3.0, PATIENCE_S)) == 3.0


def test_model_comes_and_goes_beside_another(engine: LoopedEngine) -> None:
    runtime = EchoRuntime()
    second = _beside(engine, lambda: _worker(EchoRuntime(), runtime))
    assert _value(second.submit(4.0, PATIENCE_S)) == 4.0
    assert (4.0 in runtime.seen, second.ready) == (True, True)
    engine.begin(engine.engine.crew.dismiss(1, PATIENCE_S)).result(PATIENCE_S)
    with pytest.raises(EngineStopped):
        second.submit(5.0, PATIENCE_S)
    assert _value(engine.submit(6.0, PATIENCE_S)) == 6.0


def test_model_goes_while_another_keeps_all_workers_busy(make_engine: MakeEngine) -> None:
    def slow(image: bytes) -> Float32Array:
        time.sleep(0.005)
        return echo_input(float(image))

    engine = make_engine(max_batch=1)
    engine.start()
    second = _beside(engine, lambda: ThreadWorker({number: LocalWorker(EchoRuntime(), slow) for number in (0, 1)}))
    others = [engine.submit(float(number), PATIENCE_S) for number in range(400)]
    asked = second.submit(5.0, PATIENCE_S)
    engine.begin(engine.engine.crew.dismiss(1, PATIENCE_S)).result(PATIENCE_S)
    assert _value(asked) == 5.0
    assert engine.engine.queue_depth > 100
    assert _value(others[-1]) == 399.0


def test_model_goes_when_the_requests_that_it_has_accepted_have_ended(engine: LoopedEngine) -> None:
    crew = engine.engine.crew
    second = _beside(engine, lambda: _worker(EchoRuntime(), EchoRuntime()))
    uploaded = asyncio.Event()

    async def request() -> None:
        with second.engine.expected():
            await uploaded.wait()

    async def end_upload() -> None:
        uploaded.set()

    asking = engine.begin(request())
    wait_until(lambda: second.engine.requests == 1)
    going = engine.begin(crew.dismiss(1, PATIENCE_S))
    assert _value(second.submit(5.0, PATIENCE_S)) == 5.0
    assert not going.done()
    engine.begin(end_upload())
    going.result(PATIENCE_S)
    asking.result(PATIENCE_S)
    with pytest.raises(EngineStopped):
        second.submit(6.0, PATIENCE_S)


def test_request_that_does_not_end_keeps_a_model_no_longer_than_it_may(engine: LoopedEngine) -> None:
    second = _beside(engine, lambda: _worker(EchoRuntime(), EchoRuntime()))
    with second.engine.expected():
        engine.begin(engine.engine.crew.dismiss(1, 0.05)).result(PATIENCE_S)
        with pytest.raises(EngineStopped):
            second.submit(6.0, PATIENCE_S)


def test_more_workers_run_more_at_a_time(engine: LoopedEngine, runtime: EchoRuntime) -> None:
    crew = engine.engine.crew
    engine.begin(crew.resize(4, lambda: _worker(runtime))).result(PATIENCE_S)
    wait_until(lambda: crew.scheduler.workers == 4)
    assert engine.engine.lane.policy.workers == 4
    runtime.hold()
    running = [engine.submit(float(number), PATIENCE_S) for number in range(4)]
    runtime.wait_until_running(4)
    runtime.release()
    assert [_value(each) for each in running] == [0.0, 1.0, 2.0, 3.0]


def test_workers_that_are_too_many_end_when_they_have_run_what_they_have(
    engine: LoopedEngine, runtime: EchoRuntime
) -> None:
    crew = engine.engine.crew
    runtime.hold()
    running = [engine.submit(float(number), PATIENCE_S) for number in range(2)]
    runtime.wait_until_running(2)
    resizing = engine.begin(crew.resize(1, lambda: _worker(runtime)))
    wait_until(lambda: len(crew.workers) == 1)
    assert not resizing.done()
    runtime.release()
    resizing.result(PATIENCE_S)
    assert [_value(each) for each in running] == [0.0, 1.0]
    assert (crew.scheduler.workers, engine.engine.lane.policy.workers) == (1, 1)
    assert _value(engine.submit(3.0, PATIENCE_S)) == 3.0


def test_one_worker_stays(engine: LoopedEngine, runtime: EchoRuntime) -> None:
    crew = engine.engine.crew
    engine.begin(crew.resize(0, lambda: _worker(runtime))).result(PATIENCE_S)
    assert len(crew.workers) == 1
    assert _value(engine.submit(3.0, PATIENCE_S)) == 3.0
