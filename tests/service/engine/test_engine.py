from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from artifact.preprocessing import Float32Array
from service.engine.errors import DeadlineExceeded, InferenceFailed, Overloaded
from service.engine.job import Answer
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_input
from tests.service.engine.conftest import MakeEngine
from tests.service.engine.looped import LoopedEngine
from tests.service.engine.queueing.desk import Clock


@pytest.fixture
def engine(make_engine: MakeEngine) -> LoopedEngine:
    """A started engine with one worker."""
    engine = make_engine()
    engine.start()
    return engine


def _value(answer: Answer) -> float:
    return float(answer.logits[0])


def _hold_on(engine: LoopedEngine, runtime: EchoRuntime, value: float = 1.0) -> object:
    """Keep the worker busy with one image until the runtime is released."""
    runtime.hold()
    future = engine.submit(value, PATIENCE_S)
    runtime.wait_until_running()
    return future


def test_answer_tells_what_ran_and_what_it_cost(engine: LoopedEngine) -> None:
    answer = engine.submit(7.0, PATIENCE_S).result(PATIENCE_S)
    assert answer.logits == (7, 0, 0)
    assert answer.margins == (1, -1)
    assert answer.executed == (True, True, False)
    assert answer.macs == 618 - 300
    assert answer.batch_size == 1


def test_answer_tells_how_long_each_part_took(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    clock = Clock()

    def prepare(value: float) -> Float32Array:
        clock.now += 3
        return echo_input(value)

    def run(images: Float32Array, offsets: Float32Array) -> tuple[Float32Array, Float32Array]:
        clock.now += 5
        return EchoRuntime.run(runtime, images, offsets)

    runtime.run = run  # type: ignore[method-assign]
    engine = make_engine(prepare=prepare, clock=clock)
    engine.start()
    first = _hold_on(engine, runtime, 1.0)
    second, third = engine.submit(2.0, 100), engine.submit(3.0, 100)
    clock.now += 7
    runtime.release()
    answers = [future.result(PATIENCE_S) for future in (first, second, third)]  # type: ignore[attr-defined]
    assert [(a.decode_s, a.queue_s, a.inference_s) for a in answers] == [(3, 0, 12), (3, 7, 5), (3, 7, 5)]


@pytest.mark.parametrize("workers", [1, 4])
def test_everybody_gets_their_own_answer_under_load(make_engine: MakeEngine, workers: int) -> None:
    engine = make_engine(workers=workers)
    engine.start()

    def ask(value: int) -> float:
        return _value(engine.submit(float(value), PATIENCE_S).result(PATIENCE_S))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(300))) == [float(value) for value in range(300)]


def test_requests_that_wait_are_run_together(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    sizes: list[int] = []
    engine = make_engine(max_batch=4, on_batch=sizes.append)
    engine.start()
    _hold_on(engine, runtime)
    futures = [engine.submit(float(value), PATIENCE_S) for value in range(2, 8)]
    assert engine.queue_depth == 6
    runtime.release()
    assert [future.result(PATIENCE_S).batch_size for future in futures] == [4, 4, 4, 4, 2, 2]
    assert runtime.batches[2:] == [[1.0], [2.0, 3.0, 4.0, 5.0], [6.0, 7.0]]
    assert sizes == [1, 4, 2]


def test_poisonous_image_fails_alone(engine: LoopedEngine, runtime: EchoRuntime) -> None:
    _hold_on(engine, runtime)
    runtime.poison = {3.0}
    futures = [engine.submit(float(value), PATIENCE_S) for value in range(2, 6)]
    runtime.release()
    failure = futures[1].exception(PATIENCE_S)
    assert isinstance(failure, InferenceFailed)
    assert "poisoned by [3.0]" in str(failure.__cause__)
    assert [(_value(f.result(PATIENCE_S)), f.result().batch_size) for f in futures if f is not futures[1]] == [
        (2.0, 1),
        (4.0, 1),
        (5.0, 1),
    ]
    assert _value(engine.submit(9.0, PATIENCE_S).result(PATIENCE_S)) == 9.0


def test_image_that_cannot_be_prepared_fails_alone(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    def prepare(value: float) -> Float32Array:
        if value == 3:
            raise ValueError("three is no image")
        return echo_input(value)

    engine = make_engine(prepare=prepare)
    engine.start()
    _hold_on(engine, runtime)
    futures = [engine.submit(float(value), PATIENCE_S) for value in range(2, 5)]
    runtime.release()
    with pytest.raises(ValueError, match="three is no image"):
        futures[1].result(PATIENCE_S)
    assert [_value(futures[index].result(PATIENCE_S)) for index in (0, 2)] == [2.0, 4.0]
    assert 3.0 not in runtime.seen


def test_image_of_another_size_fails_alone_and_the_worker_lives_on(
    make_engine: MakeEngine, runtime: EchoRuntime
) -> None:
    def prepare(value: float) -> Float32Array:
        return np.zeros((3, 4, 4), np.float32) if value == 3 else echo_input(value)

    engine = make_engine(prepare=prepare)
    engine.start()
    _hold_on(engine, runtime)
    futures = [engine.submit(float(value), PATIENCE_S) for value in range(2, 5)]
    runtime.release()
    # Were the worker to die, nobody would be answered any more; a few seconds are enough to tell.
    assert [_value(futures[index].result(5)) for index in (0, 2)] == [2.0, 4.0]
    assert isinstance(futures[1].exception(5), InferenceFailed)


def test_batch_without_a_single_good_image_is_not_run(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    def prepare(_: float) -> Float32Array:
        raise ValueError("no image")

    engine = make_engine(prepare=prepare)
    engine.start()
    warm_up = len(runtime.batches)
    assert isinstance(engine.submit(1.0, PATIENCE_S).exception(PATIENCE_S), ValueError)
    assert isinstance(engine.submit(2.0, PATIENCE_S).exception(PATIENCE_S), ValueError)
    assert len(runtime.batches) == warm_up


def test_full_queue_refuses_at_once(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    engine = make_engine(capacity=2)
    engine.start()
    _hold_on(engine, runtime)
    waiting = [engine.submit(2.0, PATIENCE_S), engine.submit(3.0, PATIENCE_S)]
    with pytest.raises(Overloaded):
        engine.submit(4.0, PATIENCE_S)
    assert (engine.queue_depth, engine.engine.queue_capacity) == (2, 2)
    runtime.release()
    assert [_value(future.result(PATIENCE_S)) for future in waiting] == [2.0, 3.0]
    assert 4.0 not in runtime.seen


def test_withdrawn_request_is_never_run(engine: LoopedEngine, runtime: EchoRuntime) -> None:
    _hold_on(engine, runtime)
    withdrawn, other = engine.submit(2.0, PATIENCE_S), engine.submit(3.0, PATIENCE_S)
    withdrawn.withdraw()
    runtime.release()
    other.result(PATIENCE_S)
    assert runtime.seen[-2:] == [1.0, 3.0]
    assert not withdrawn.done()


def test_expired_request_is_never_run(make_engine: MakeEngine, runtime: EchoRuntime) -> None:
    clock = Clock()
    engine = make_engine(clock=clock)
    engine.start()
    _hold_on(engine, runtime)
    late, fine = engine.submit(2.0, 5.0), engine.submit(3.0, 6.0)
    clock.now += 5.5
    runtime.release()
    assert isinstance(late.exception(PATIENCE_S), DeadlineExceeded)
    assert _value(fine.result(PATIENCE_S)) == 3.0
    assert 2.0 not in runtime.seen


def test_request_that_expires_while_its_neighbours_are_prepared_is_never_run(
    make_engine: MakeEngine, runtime: EchoRuntime
) -> None:
    clock = Clock()

    def prepare(value: float) -> Float32Array:
        clock.now += 3
        return echo_input(value)

    engine = make_engine(prepare=prepare, clock=clock)
    engine.start()
    _hold_on(engine, runtime)
    in_time, late = engine.submit(2.0, 10.0), engine.submit(3.0, 2.0)
    runtime.release()
    assert isinstance(late.exception(PATIENCE_S), DeadlineExceeded)
    assert _value(in_time.result(PATIENCE_S)) == 2.0
    assert 3.0 not in runtime.seen
