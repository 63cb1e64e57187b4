from __future__ import annotations

import os
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

from service.engine.scheduling_policy import set_policy
from service.engine.workers.local import LocalWorker
from service.engine.workers.thread import ThreadWorker
from tests.runtimes import PATIENCE_S, EchoRuntime, echo_input
from tests.service.engine.looped import Master
from tests.service.engine.workers.processes import MakeMaster, job

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="on Linux only")


def _standing_back(work: Callable[[], Any]) -> None:
    """Do something in a thread that stands back for others, as the event loop's does."""

    def stand_back() -> None:
        assert set_policy("SCHED_BATCH")
        work()

    thread = Thread(target=stand_back)
    thread.start()
    thread.join(PATIENCE_S)


def test_process_does_not_stand_back_because_it_was_started_by_somebody_who_does(make_master: MakeMaster) -> None:
    master = make_master()
    _standing_back(master.start)
    assert master.worker.pid is not None
    assert os.sched_getscheduler(master.worker.pid) == os.SCHED_OTHER


def test_thread_does_not_stand_back_because_it_was_started_by_somebody_who_does(runtime: EchoRuntime) -> None:
    policies: list[int] = []

    def prepare(value: float) -> Any:
        policies.append(os.sched_getscheduler(0))
        return echo_input(value)

    master = Master(ThreadWorker({0: LocalWorker(runtime, prepare)}))
    master.loop.do(lambda: set_policy("SCHED_BATCH"))
    master.start()
    master.work([job(1.0)])
    master.close()
    assert policies == [os.SCHED_OTHER]


def test_unknown_policy_is_not_set() -> None:
    assert not set_policy("SCHED_NOBODY_KNOWS")
