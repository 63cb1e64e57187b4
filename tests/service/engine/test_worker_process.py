from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from artifact.manifest import ArtifactError
from service.engine import worker_process
from service.engine.batcher import BatchPolicy
from service.engine.errors import InferenceFailed, RuntimeUnavailable, WorkerLost
from service.engine.wire import UnexpectedError
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
