from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from service.engine.errors import InferenceFailed, InvalidTensor, WorkerLost
from service.engine.ipc.codec import Check, OutcomeCodec, unpack_jobs
from service.engine.ipc.frames import unframed
from service.engine.job import Answer, ImageJob, Outcome
from service.engine.workers.remote import RemoteWorker
from tests.runtimes import PATIENCE_S, echo_manifest, wait_until
from tests.service.engine.looped import Master
from tests.service.engine.workers.echo_worker import BadNumber
from tests.service.engine.workers.processes import job, jobs, values


class Elsewhere:
    """Answers each image with its number, when a test lets it.

    Attributes:
        came: all batches.
        loses: whether every batch is lost.
        outcome: made of a job.
    """

    def __init__(self) -> None:
        self.codec = OutcomeCodec(echo_manifest(), [BadNumber])
        self.came: list[list[ImageJob]] = []
        self.loses = False
        self.outcome: Callable[[ImageJob], Outcome] = _echo
        self.held: set[bytes] = set()

    async def run(self, frame: bytes) -> bytes:
        asked = unpack_jobs(unframed(frame))
        assert not isinstance(asked, Check)
        self.came.append(asked)
        while asked[0].image in self.held:
            await asyncio.sleep(0.001)
        if self.loses:
            raise WorkerLost("died")
        return self.codec.pack([self.outcome(each) for each in asked])


def _echo(asked: ImageJob) -> Outcome:
    if asked.image == b"bad":
        return BadNumber("it is none")
    number = 0.0 if asked.is_tensor else float(asked.image)
    return Answer((number, 0.0, 0.0), (1.0, -1.0), (True, True, False), 5, 1, 0.25, 0.125, 0.5)


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def make(elsewhere: Elsewhere) -> Iterator[Callable[..., Master]]:
    """Masters of workers that have their batches run elsewhere."""
    made = []

    def make(stuck_s: float = PATIENCE_S) -> Master:
        made.append(Master(RemoteWorker(elsewhere.run, elsewhere.codec, 2, stuck_s)))
        made[-1].start()
        return made[-1]

    yield make
    for master in made:
        master.loop.do(master.worker.disconnect)
        master.loop.close()


@pytest.fixture
def master(make: Callable[..., Master]) -> Master:
    return make()


def test_answers_and_failures_come_back(master: Master) -> None:
    assert values(master.work(jobs("1", "bad", "2"))) == [1.0, "BadNumber", 2.0]


def test_second_batch_is_away_while_the_first_is_and_is_told_after_it(master: Master, elsewhere: Elsewhere) -> None:
    elsewhere.held = {b"1"}
    for number in ("1", "2"):
        assert master.give(jobs(number))
    wait_until(lambda: len(elsewhere.came) == 2)
    assert master.nothing_came()
    elsewhere.held = set()
    assert [values(master.answer()) for _ in range(2)] == [[1.0], [2.0]]


def test_times_are_told_from_now_on(master: Master, elsewhere: Elsewhere) -> None:
    master.work([job(b"1", within=7.0)])
    ((asked,),) = elsewhere.came
    assert -1 < asked.queued_at <= 0
    assert 6 < asked.deadline <= 7


def test_all_time_that_an_image_did_not_take_for_itself_was_waiting(
    master: Master,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(master.worker, "_clock", lambda: asked.queued_at + 2.0)
    asked = job(b"1")
    (answer,) = master.work([asked])
    assert isinstance(answer, Answer)
    assert answer.queue_s == pytest.approx(2.0 - 0.25 - 0.5)


def test_loss_is_told_once_with_all_that_was_away_and_the_worker_can_begin_again(
    master: Master, elsewhere: Elsewhere
) -> None:
    elsewhere.loses = True
    for number in ("1", "2"):
        master.give(jobs(number))
    with pytest.raises(WorkerLost) as lost:
        master.answer()
    assert lost.value.reason == "died"
    assert master.nothing_came()
    assert not master.give(jobs("3"))
    elsewhere.loses = False
    master.start()
    assert values(master.work(jobs("4"))) == [4.0]
    assert master.nothing_came()


def test_batch_that_does_not_come_back_is_lost(make: Callable[..., Master], elsewhere: Elsewhere) -> None:
    elsewhere.held = {b"1"}
    master = make(stuck_s=0.05)
    master.give(jobs("1"))
    with pytest.raises(WorkerLost) as lost:
        master.answer()
    assert lost.value.reason == "stuck"


def test_batch_that_is_waited_for_no_more_is_lost(master: Master, elsewhere: Elsewhere) -> None:
    elsewhere.held = {b"1"}
    master.give(jobs("1"))
    master.loop.do(master.worker.abort)
    with pytest.raises(WorkerLost):
        master.answer()


def test_answers_that_make_no_sense_fail_the_images_and_not_the_worker(master: Master, elsewhere: Elsewhere) -> None:
    elsewhere.outcome = lambda asked: _echo(asked)._replace(batch_size=9)  # type: ignore[union-attr]
    assert values(master.work(jobs("1", "2"))) == ["ValueError", "ValueError"]
    elsewhere.outcome = _echo
    assert values(master.work(jobs("1"))) == [1.0]


def test_check_runs_black_images(master: Master, elsewhere: Elsewhere) -> None:
    assert master.check(3) == []
    ((first, *others),) = elsewhere.came
    assert (first.image, first.is_tensor, len(others)) == (bytes(48), True, 2)
    elsewhere.outcome = lambda _: InvalidTensor("no finite numbers")
    assert [type(one) for one in master.check(2)] == [InferenceFailed]
