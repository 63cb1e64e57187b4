from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from artifact.manifest import ArtifactError
from service.engine import wire, worker_process
from service.engine.batcher import BatchPolicy
from service.engine.errors import InferenceFailed, RuntimeUnavailable, WorkerLost
from service.engine.wire import UnexpectedError
from service.engine.worker import Job
from service.engine.worker_process import WorkerProcess
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.engine.echo_worker import WORKERS, BadNumber
from tests.service.engine.processes import MakeWorker, children, is_running, jobs, open_files, values


@pytest.fixture
def worker(make_worker: MakeWorker) -> WorkerProcess:
    """A started worker."""
    worker = make_worker()
    worker.start()
    return worker


def _assert_works(worker: WorkerProcess) -> None:
    assert values(worker.work(jobs("5"))) == [5.0]


def test_worker_runs_in_a_process_of_its_own(worker: WorkerProcess) -> None:
    assert worker.alive
    assert worker.pid is not None
    assert worker.pid != os.getpid()
    outcomes = worker.work(jobs("3", "1", "2"))
    assert values(outcomes) == [3.0, 1.0, 2.0]
    worker.check(4)


def test_what_goes_wrong_with_an_image_keeps_its_kind_and_is_nobody_elses(worker: WorkerProcess) -> None:
    outcomes = worker.work(jobs("1", "five", "666", "nan", "surprise", "2"))
    assert [type(one) for one in outcomes[1:5]] == [BadNumber, InferenceFailed, InferenceFailed, UnexpectedError]
    assert [str(outcomes[1]), str(outcomes[4])] == ["five is no number", "LookupError: what a surprise"]
    assert [values(outcomes)[row] for row in (0, 5)] == [1.0, 2.0]
    _assert_works(worker)


def test_worker_that_opens_the_model_says_how(make_worker: MakeWorker) -> None:
    worker = make_worker(first=True)
    worker.launch(tune=True)
    opened = worker.opened()
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
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker()
    files = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(worker_process.sys, "executable", "/nowhere/python")
        with pytest.raises(RuntimeUnavailable, match="No such file"):
            worker.start()
    assert open_files() == files
    worker.start()
    _assert_works(worker)


@pytest.mark.parametrize("order", ["die", "nonsense", "absurdity", "half"])
def test_process_that_is_lost_at_work_is_told_and_can_be_started_again(make_worker: MakeWorker, order: str) -> None:
    worker = make_worker()
    worker.start()
    lost = worker.pid
    assert lost is not None
    with pytest.raises(WorkerLost) as caught:
        worker.work(jobs("1", order))
    assert caught.value.reason == "died"
    assert (worker.alive, worker.pid, is_running(lost)) == (False, None, False)
    with pytest.raises(WorkerLost):
        worker.work(jobs("1"))
    worker.start()
    assert worker.pid != lost
    _assert_works(worker)


@pytest.mark.parametrize("order", ["hang", "stutter"])
def test_process_that_takes_too_long_is_ended(make_worker: MakeWorker, order: str) -> None:
    worker = make_worker(stuck_s=0.3)
    worker.start()
    lost = worker.pid
    assert lost is not None
    started = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        worker.work(jobs(order))
    assert time.monotonic() - started >= 0.3
    assert caught.value.reason == "stuck"
    assert not is_running(lost)
    worker.start()
    _assert_works(worker)


def test_what_follows_is_there_before_the_first_answer_is_read(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = wire.receive

    def late(*arguments: Any) -> bytearray:
        wait_until(lambda: worker.died)  # which it does only when it has been told to
        return receive(*arguments)

    following = jobs("die")
    with monkeypatch.context() as patch:
        patch.setattr(wire, "receive", late)
        assert values(worker.work(jobs("1"), following)) == [1.0]
    assert worker.busy
    with pytest.raises(WorkerLost):
        worker.work(following)
    assert not worker.busy


def test_batches_sent_ahead_are_answered_in_order_and_run_once(worker: WorkerProcess) -> None:
    batches = [jobs(str(number), "2") for number in range(5)]
    for batch, following in pairwise(batches):
        assert values(worker.work(batch, following))[0] == float(batch[0].payload)
        assert worker.busy
    assert values(worker.work(batches[-1])) == [4.0, 2.0]
    assert not worker.busy
    worker.check(1)  # nothing else is waiting to be read


@pytest.mark.parametrize("order", ["die", "nonsense"])
def test_what_follows_is_forgotten_with_the_process_and_sent_again_to_the_next(
    worker: WorkerProcess, order: str
) -> None:
    following = jobs("2")
    with pytest.raises(WorkerLost):
        worker.work(jobs(order), following)
    assert not worker.busy
    worker.start()
    assert values(worker.work(following)) == [2.0]
    _assert_works(worker)


def test_aborted_process_forgets_what_follows(worker: WorkerProcess) -> None:
    following = jobs("hang")
    assert values(worker.work(jobs("1"), following)) == [1.0]
    worker.abort()
    with pytest.raises(WorkerLost):
        worker.work(following)
    assert not worker.busy


def test_process_that_dies_before_it_can_be_sent_what_follows_has_died_and_its_answer_counts(
    worker: WorkerProcess,
) -> None:
    answered = jobs("2")
    worker.work(jobs("1"), answered)
    assert worker.pid is not None
    connection = worker._connection
    assert connection is not None
    wait_until(lambda: bool(select.select([connection], [], [], 0)[0]))
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: worker.died)
    following = jobs("3")
    assert values(worker.work(answered, following)) == [2.0]
    assert (worker.died, worker.busy) == (True, False)
    worker.start()
    assert values(worker.work(following)) == [3.0]


def test_each_batch_may_take_as_long_as_any(make_worker: MakeWorker) -> None:
    worker = make_worker(stuck_s=2.0)
    worker.start()
    following = jobs("nap")
    for jobs_, next_ in ((jobs("nap"), following), (following, ())):
        assert values(worker.work(jobs_, next_)) == ["BadNumber"]


def test_time_in_the_socket_counts_against_what_follows(worker: WorkerProcess) -> None:
    following = [Job(b"2", 0.6, 0.0), Job(b"3", PATIENCE_S, 0.0)]
    worker.work(jobs("nap"), following)
    assert values(worker.work(following)) == ["DeadlineExceeded", 3.0]


def test_process_that_is_stopped_counts_as_stuck_and_is_ended_at_once(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_LONGEST_END_S", PATIENCE_S)
    started = time.monotonic()
    worker = make_worker(stuck_s=0.3)
    worker.start()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLost) as caught:
        worker.check(1)
    assert caught.value.reason == "stuck"
    assert worker.pid is None
    assert time.monotonic() - started < PATIENCE_S


def test_process_that_dies_idle_is_not_alive_and_can_be_started_again(
    worker: WorkerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    lost = worker.pid
    assert lost is not None
    os.kill(lost, signal.SIGKILL)
    wait_until(lambda: not worker.alive)
    worker.start()
    assert worker.pid != lost
    _assert_works(worker)
    told = [f"worker process {lost} died, exit status -9", f"worker process {worker.pid} has taken the place of {lost}"]
    assert caplog.messages == told


def test_failing_check_is_told(make_worker: MakeWorker) -> None:
    worker = make_worker(poison=[0])
    worker.start()
    with pytest.raises(InferenceFailed):
        worker.check(1)
    _assert_works(worker)


def test_restarts_leave_nothing_behind(worker: WorkerProcess) -> None:
    files, processes = open_files(), children()
    for order in ("die", "nonsense"):
        with pytest.raises(WorkerLost):
            worker.work(jobs(order))
        worker.start()
    assert open_files() == files
    assert len(children()) == len(processes)
    worker.close()
    assert open_files() == files - 1
    assert len(children()) == len(processes) - 1


def test_closing_ends_a_process_even_if_it_does_not_react(worker: WorkerProcess) -> None:
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    worker.close()
    assert not is_running(pid)
    worker.close()  # twice is harmless


def test_whoever_waits_for_an_aborted_worker_is_told(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.start()
    reasons = []

    def wait() -> None:
        try:
            worker.work(jobs("hang"))
        except WorkerLost as loss:
            reasons.append(loss.reason)

    waiting = Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    worker.abort()
    waiting.join(PATIENCE_S)
    assert reasons == ["died"]


def test_aborted_worker_stays_down(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.abort()
    with pytest.raises(WorkerLost):
        worker.start()
    assert worker.pid is None


_SERVICE = """
import sys
from tests.service.engine.processes import echo_process, jobs
worker = echo_process()
worker.start()
print(worker.pid, flush=True)
worker.work(jobs(sys.argv[1]) if sys.argv[1] else sys.stdin.read())
"""


@pytest.mark.parametrize("order", ["", "hang"], ids=["idle", "hanging"])
def test_worker_does_not_outlive_a_service_that_was_killed(order: str) -> None:
    command = [sys.executable, "-c", _SERVICE, order]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], **pipes) as service:  # type: ignore[call-overload]
        pid = int(service.stdout.readline())
        assert is_running(pid)
        service.kill()
        wait_until(lambda: not is_running(pid))
        # Once all who could write to it have ended.
        assert service.stderr.read() == b""
