from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from service.engine.errors import InferenceFailed
from service.engine.workers.local import LocalWorker
from service.engine.workers.thread import ThreadWorker
from tests.runtimes import EchoRuntime, echo_input, wait_until
from tests.service.engine.looped import Master
from tests.service.engine.workers.processes import job, values


@pytest.fixture
def master(runtime: EchoRuntime) -> Iterator[Master]:
    """Of a started worker."""
    master = Master(ThreadWorker({0: LocalWorker(runtime, echo_input)}))
    master.start()
    yield master
    runtime.release()
    master.close()


def test_batches_are_answered_in_order(master: Master) -> None:
    for number in range(3):
        assert master.give([job(float(number)), job(7.0)])
    assert [values(master.answer()) for _ in range(3)] == [[float(number), 7.0] for number in range(3)]


def test_next_batch_is_begun_without_the_loop(master: Master, runtime: EchoRuntime) -> None:
    def give() -> None:
        for number in (1.0, 2.0):
            master.worker.give([job(number)])
        wait_until(lambda: runtime.batches == [[1.0], [2.0]])

    master.loop.do(give)
    assert [values(master.answer()) for _ in range(2)] == [[1.0], [2.0]]


def test_check_says_what_is_wrong(master: Master, runtime: EchoRuntime) -> None:
    assert master.check(2) == []
    runtime.poison = {0.0}
    assert [type(one) for one in master.check(1)] == [InferenceFailed]


def test_what_nobody_foresaw_is_the_outcome_and_does_not_end_the_thread(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> None:
        raise LookupError("a bug of the service")

    with monkeypatch.context() as patch:
        patch.setattr(LocalWorker, "work", surprise)
        assert values(master.work([job(1.0), job(2.0)])) == ["LookupError", "LookupError"]
    assert values(master.work([job(1.0)])) == [1.0]


def test_thread_ends_when_nobody_listens(master: Master) -> None:
    worker = master.worker
    assert isinstance(worker, ThreadWorker)
    thread = worker._thread
    assert thread is not None
    assert thread.is_alive()
    master.loop.do(worker.disconnect)
    wait_until(lambda: not thread.is_alive())


def test_answer_that_comes_when_the_loop_is_closed_is_nobodys(runtime: EchoRuntime) -> None:
    worker = ThreadWorker({0: LocalWorker(runtime, echo_input)})

    async def scenario() -> None:
        await worker.connect(lambda _: None, lambda _: None)
        runtime.hold()
        worker.give([job(1.0)])
        worker.disconnect()
        await asyncio.to_thread(runtime.wait_until_running)

    asyncio.run(scenario())
    runtime.release()
    thread = worker._thread
    assert thread is not None
    wait_until(lambda: not thread.is_alive())  # an exception in it would be a warning, and so an error
