from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifact.manifest import ArtifactError
from service.engine import child_process
from service.engine.errors import DeadlineExceeded, InferenceFailed, RuntimeUnavailable, WorkerLost
from service.engine.ipc.codec import UnexpectedError
from service.engine.job import Answer
from service.engine.runtimes.tuning import BatchPolicy
from service.engine.workers import process as worker_process
from tests.processes import children, is_running
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.engine.looped import Master
from tests.service.engine.workers.echo_worker import WORKERS, BadNumber
from tests.service.engine.workers.processes import (
    MakeMaster,
    MakeWorker,
    job,
    jobs,
    open_files,
    values,
)


@pytest.fixture
def master(make_master: MakeMaster) -> Master:
    """Of a started worker."""
    master = make_master()
    master.start()
    return master


def _assert_works(master: Master) -> None:
    assert values(master.work(jobs("5"))) == [5.0]


def test_worker_runs_in_a_process_of_its_own(master: Master) -> None:
    assert master.worker.alive
    assert master.worker.pid is not None
    assert master.worker.pid != os.getpid()
    outcomes = master.work(jobs("3", "1", "2"))
    assert values(outcomes) == [3.0, 1.0, 2.0]
    assert master.check(4) == []


def test_what_goes_wrong_with_an_image_keeps_its_kind_and_is_nobody_elses(master: Master) -> None:
    outcomes = master.work(jobs("1", "five", "666", "nan", "surprise", "2"))
    assert [type(one) for one in outcomes[1:5]] == [BadNumber, InferenceFailed, InferenceFailed, UnexpectedError]
    assert [str(outcomes[1]), str(outcomes[4])] == ["five is no number", "LookupError: what a surprise"]
    assert [values(outcomes)[row] for row in (0, 5)] == [1.0, 2.0]
    _assert_works(master)


def test_worker_that_opens_the_model_says_how(make_worker: MakeWorker) -> None:
    worker = make_worker(first=True)
    worker.launch(tune=True)
    (opened,) = worker.opened()
    assert opened.runtime.name == "echo 1"
    assert opened.tuning is not None
    assert opened.tuning.policy == BatchPolicy(WORKERS, max_batch=4, max_wait_ms=0)
    assert opened.first
    assert make_worker().pid is None


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("ArtifactError", ArtifactError),
        ("RuntimeUnavailable", RuntimeUnavailable),
        ("InferenceFailed", InferenceFailed),
        ("LookupError", WorkerLost),  # nobody expects it, so the process ends by it
    ],
)
def test_refusal_to_start_is_told(make_worker: MakeWorker, kind: str, raised: type[Exception]) -> None:
    worker = make_worker(refuse=[kind, "the reason"])
    with pytest.raises(raised) as caught:
        worker.start()
    if raised in (ArtifactError, RuntimeUnavailable):
        assert str(caught.value) == "the reason"
    assert not worker.alive
    assert worker.pid is None


@pytest.mark.parametrize("order", ["die", "nonsense", "absurdity", "half"])
def test_process_that_is_lost_while_it_starts_is_told(make_worker: MakeWorker, order: str) -> None:
    worker = make_worker(before=order)
    with pytest.raises(WorkerLost) as caught:
        worker.start()
    assert caught.value.reason == "died"
    assert not worker.alive


def test_process_that_the_system_does_not_let_start_is_told(
    make_master: MakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    master = make_master()
    files = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(child_process.sys, "executable", "/nowhere/python")
        with pytest.raises(RuntimeUnavailable, match="No such file"):
            master.start()
    assert open_files() == files
    master.start()
    _assert_works(master)


@pytest.mark.parametrize("order", ["die", "nonsense", "absurdity", "half"])
def test_process_that_is_lost_at_work_is_told_and_can_be_started_again(master: Master, order: str) -> None:
    lost = master.worker.pid
    assert lost is not None
    with pytest.raises(WorkerLost) as caught:
        master.work(jobs("1", order))
    assert caught.value.reason == "died"
    assert not master.worker.alive
    assert not master.give(jobs("1"))
    master.start()
    assert not is_running(lost)
    assert master.worker.pid != lost
    _assert_works(master)


@pytest.mark.parametrize("order", ["hang", "stutter"])
def test_process_that_takes_too_long_is_ended(make_master: MakeMaster, order: str) -> None:
    master = make_master(stuck_s=2.0)
    master.start()
    lost = master.worker.pid
    assert lost is not None
    started = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        master.work(jobs(order))
    assert time.monotonic() - started >= 2.0
    assert caught.value.reason == "stuck"
    master.start()
    assert not is_running(lost)
    _assert_works(master)


def test_batch_that_follows_is_begun_before_the_first_answer_is_taken(master: Master) -> None:
    def give_both() -> None:
        assert master.worker.give(jobs("1"))
        assert master.worker.give(jobs("die"))
        wait_until(lambda: not master.worker.alive)  # the loop, and so the answer, waits meanwhile

    master.loop.do(give_both)
    assert values(master.answer()) == [1.0]
    with pytest.raises(WorkerLost):
        master.answer()


def test_batches_given_ahead_are_answered_in_order_and_run_once(master: Master) -> None:
    for number in range(5):
        assert master.give(jobs(str(number), "2"))
    assert [values(master.answer()) for _ in range(5)] == [[float(number), 2.0] for number in range(5)]
    assert master.check(1) == []
    assert master.nothing_came()


@pytest.mark.parametrize("order", ["die", "nonsense"])
def test_what_follows_is_forgotten_with_the_process(master: Master, order: str) -> None:
    master.loop.do(lambda: [master.worker.give(jobs(payload)) for payload in (order, "2")])
    with pytest.raises(WorkerLost):
        master.answer()
    master.start()
    _assert_works(master)
    assert master.nothing_came()


def test_process_that_is_gone_is_given_nothing_though_nobody_has_been_told(master: Master) -> None:
    def kill() -> bool:
        assert master.worker.pid is not None
        os.kill(master.worker.pid, signal.SIGKILL)
        wait_until(lambda: not master.worker.alive)
        return master.worker.give(jobs("1"))

    assert not master.loop.do(kill)
    with pytest.raises(WorkerLost):
        master.answer()


def test_what_a_process_said_before_it_died_is_heard(master: Master) -> None:
    def kill() -> None:
        assert master.worker.give(jobs("1"))
        connection = master.worker._dialogue._connection._socket  # type: ignore[attr-defined]
        wait_until(lambda: bool(select.select([connection], [], [], 0)[0]))
        assert master.worker.pid is not None
        os.kill(master.worker.pid, signal.SIGSTOP)
        for _ in range(3):  # which it does not read any more
            assert master.worker.give(jobs("2"))
        os.kill(master.worker.pid, signal.SIGKILL)
        wait_until(lambda: not master.worker.alive)

    master.loop.do(kill)
    assert values(master.answer()) == [1.0]
    with pytest.raises(WorkerLost):
        master.answer()


def test_images_larger_than_a_socket_holds_arrive(master: Master) -> None:
    large = b"7" + b" " * 3_000_000
    for _ in range(3):
        assert master.give([job(large), job(b"2")])
    assert [values(master.answer()) for _ in range(3)] == [[7.0, 2.0]] * 3


def test_each_batch_may_take_as_long_as_any(make_master: MakeMaster) -> None:
    master = make_master(stuck_s=2.0)
    master.start()
    for _ in range(2):
        assert master.give(jobs("nap"))
    assert [values(master.answer()) for _ in range(2)] == [["BadNumber"]] * 2


def test_time_behind_other_batches_counts_against_what_follows(master: Master) -> None:
    master.give(jobs("nap"))
    master.give([job(b"2", within=0.6), job(b"3")])
    master.answer()
    late, fine = master.answer()
    assert isinstance(late, DeadlineExceeded)
    assert isinstance(fine, Answer)
    assert 1.0 < fine.queue_s < PATIENCE_S


def test_process_that_is_stopped_counts_as_stuck_and_is_ended_at_once(
    make_master: MakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_LONGEST_END_S", PATIENCE_S)
    started = time.monotonic()
    master = make_master(stuck_s=2.0)
    master.start()
    assert master.worker.pid is not None
    os.kill(master.worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLost) as caught:
        master.check(1)
    assert caught.value.reason == "stuck"
    master.worker.close()
    assert master.worker.pid is None
    assert time.monotonic() - started < PATIENCE_S


def test_process_that_dies_idle_is_told_and_can_be_started_again(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    lost = master.worker.pid
    assert lost is not None
    os.kill(lost, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        master.answer()
    master.start()
    worker = master.worker
    assert worker.pid != lost
    _assert_works(master)
    told = [f"worker process {lost} died, exit status -9", f"worker process {worker.pid} has taken the place of {lost}"]
    assert caplog.messages == told


def test_process_that_dies_before_it_takes_work_is_told_once(make_master: MakeMaster) -> None:
    master = make_master()
    master.worker.start()
    assert master.worker.pid is not None
    os.kill(master.worker.pid, signal.SIGKILL)
    wait_until(lambda: not master.worker.alive)

    def connect() -> None:
        master.connect()
        master.answer()

    with pytest.raises(WorkerLost):  # at once or in a moment
        connect()
    assert master.nothing_came()
    master.start()
    _assert_works(master)


def test_failing_check_is_told(make_master: MakeMaster) -> None:
    master = make_master(poison=[0])
    master.start()
    assert [type(one) for one in master.check(1)] == [InferenceFailed]
    _assert_works(master)


def test_restarts_leave_nothing_behind(master: Master) -> None:
    files, processes = open_files(), children(os.getpid(), zombies=True)
    for order in ("die", "nonsense"):
        with pytest.raises(WorkerLost):
            master.work(jobs(order))
        master.start()
    wait_until(lambda: open_files() == files)
    assert len(children(os.getpid(), zombies=True)) == len(processes)
    master.loop.do(master.worker.disconnect)
    master.worker.close()
    wait_until(lambda: open_files() == files - 2)  # the socket, and the pipe of what it prints
    assert len(children(os.getpid(), zombies=True)) == len(processes) - 1


def test_closing_ends_a_process_even_if_it_does_not_react(master: Master) -> None:
    pid = master.worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    master.loop.do(master.worker.disconnect)
    master.worker.close()
    assert not is_running(pid)
    master.worker.close()  # twice is harmless


def test_nothing_is_heard_of_a_process_that_was_hung_up_on(master: Master) -> None:
    master.loop.do(master.worker.disconnect)
    master.worker.close()
    master.loop.do(lambda: None)
    assert master.nothing_came()
    assert not master.give(jobs("1"))


def test_whoever_waits_for_an_aborted_worker_is_told(master: Master) -> None:
    assert master.give(jobs("hang"))
    assert master.give(jobs("1"))
    time.sleep(0.1)
    assert master.nothing_came()
    master.worker.abort()
    with pytest.raises(WorkerLost) as caught:
        master.answer()
    assert caught.value.reason == "died"
    assert master.nothing_came()


def test_aborted_worker_stays_down(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.abort()
    with pytest.raises(WorkerLost):
        worker.start()
    assert worker.pid is None


_SERVICE = """
import sys
from tests.service.engine.looped import Master
from tests.service.engine.workers.processes import echo_process, jobs
master = Master(echo_process())
master.start()
print(master.worker.pid, flush=True)
master.work(jobs(sys.argv[1])) if sys.argv[1] else sys.stdin.read()
"""


@pytest.mark.parametrize("order", ["", "hang"], ids=["idle", "hanging"])
def test_worker_does_not_outlive_a_service_that_was_killed(order: str) -> None:
    command = [sys.executable, "-c", _SERVICE, order]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=Path(__file__).parents[4], **pipes) as service:  # type: ignore[call-overload]
        pid = int(service.stdout.readline())
        assert is_running(pid)
        service.kill()
        wait_until(lambda: not is_running(pid))
        # Once all who could write to it have ended.
        assert service.stderr.read() == b""
