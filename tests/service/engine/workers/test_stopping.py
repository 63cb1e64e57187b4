from __future__ import annotations

from threading import Thread

import pytest

from service.engine.errors import EngineStopped
from service.engine.workers.thread import ThreadWorker
from tests.runtimes import PATIENCE_S, EchoRuntime, wait_until
from tests.service.engine.conftest import MakeEngine
from tests.service.engine.looped import LoopedEngine


@pytest.fixture
def engine(make_engine: MakeEngine) -> LoopedEngine:
    """Not started yet; one worker that takes one image at a time."""
    return make_engine(max_batch=1)


def test_engine_that_was_not_started_takes_nothing(engine: LoopedEngine) -> None:
    with pytest.raises(EngineStopped):
        engine.submit(1.0, PATIENCE_S)


def test_engine_that_was_not_started_can_be_stopped(engine: LoopedEngine) -> None:
    engine.stop(PATIENCE_S)
    assert not engine.ready


def test_stopped_engine_takes_nothing(engine: LoopedEngine) -> None:
    engine.start()
    engine.stop(PATIENCE_S)
    assert not engine.ready
    with pytest.raises(EngineStopped):
        engine.submit(1.0, PATIENCE_S)


def test_stopping_finishes_what_was_accepted(engine: LoopedEngine, runtime: EchoRuntime) -> None:
    engine.start()
    runtime.hold()
    futures = [engine.submit(float(value), PATIENCE_S) for value in (1, 2, 3)]
    runtime.wait_until_running()
    stopping = Thread(target=engine.stop, args=(PATIENCE_S,))
    stopping.start()
    wait_until(lambda: not engine.ready)
    with pytest.raises(EngineStopped):
        engine.submit(4.0, PATIENCE_S)
    assert stopping.is_alive()
    runtime.release()
    stopping.join(PATIENCE_S)
    # Done, not only promised: stop has waited for them.
    assert all(future.done() for future in futures)
    assert [float(future.result().logits[0]) for future in futures] == [1.0, 2.0, 3.0]


def test_stopping_without_patience_fails_what_is_queued(engine: LoopedEngine, runtime: EchoRuntime) -> None:
    engine.start()
    runtime.hold()
    running, *queued = [engine.submit(float(value), PATIENCE_S) for value in (1, 2, 3)]
    runtime.wait_until_running()
    engine.stop(drain_s=0)
    assert [type(future.exception(timeout=0)) for future in queued] == [EngineStopped, EngineStopped]
    assert not running.done()
    runtime.release()
    assert running.result(PATIENCE_S).logits[0] == 1.0
    assert 2.0 not in runtime.seen


def test_stopping_twice_is_harmless(engine: LoopedEngine) -> None:
    engine.start()
    engine.stop(PATIENCE_S)
    engine.stop(PATIENCE_S)
    assert engine.queue_depth == 0


def test_workers_end_when_the_engine_stops(make_engine: MakeEngine) -> None:
    engine = make_engine(workers=3, max_batch=2)
    engine.start()
    workers = [worker for worker in engine.engine.crew.workers if isinstance(worker, ThreadWorker)]
    wait_until(lambda: sum(_runs(worker) for worker in workers) == 3)
    engine.stop(PATIENCE_S)
    wait_until(lambda: not any(map(_runs, workers)))


def _runs(worker: ThreadWorker) -> bool:
    return worker._thread is not None and worker._thread.is_alive()
