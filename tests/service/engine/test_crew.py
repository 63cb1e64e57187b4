"""Workers that are replaced while they are asked."""

from __future__ import annotations

import pytest

from service.engine.engine import Engine
from service.engine.errors import EngineStopped, RuntimeUnavailable
from service.engine.runtimes.base import description
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
    crew, first, runtime = engine.engine.crew, engine.engine, EchoRuntime()
    source = first.model
    model = Model(1, source.folder, runtime.manifest, description(runtime), source.tuning)
    second = LoopedEngine(Engine(crew, model, 100), engine)
    engine.begin(crew.replace(lambda: _worker(EchoRuntime(), runtime), [second.engine])).result(PATIENCE_S)
    assert _value(second.submit(4.0, PATIENCE_S)) == 4.0
    assert (4.0 in runtime.seen, second.ready) == (True, True)
    engine.begin(crew.dismiss(1, PATIENCE_S)).result(PATIENCE_S)
    with pytest.raises(EngineStopped):
        second.submit(5.0, PATIENCE_S)
    assert _value(engine.submit(6.0, PATIENCE_S)) == 6.0
