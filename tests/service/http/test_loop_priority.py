from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from service.http.loop_priority import LoopPriority


@pytest.fixture(autouse=True)
def _usual_switch_interval() -> Iterator[None]:
    """Servers of other tests may be running and have changed it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def test_workers_are_favoured_while_serving_and_not_after() -> None:
    with LoopPriority().favouring_workers():
        assert sys.getswitchinterval() < 0.001
        if hasattr(os, "SCHED_BATCH"):
            assert os.sched_getscheduler(0) == os.SCHED_BATCH
    assert sys.getswitchinterval() == pytest.approx(0.005)
    if hasattr(os, "SCHED_BATCH"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no scheduling policies")
def test_loop_does_not_stand_back_under_overload() -> None:
    scheduling = LoopPriority()
    with scheduling.favouring_workers():
        scheduling.note_overload(True)
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        scheduling.note_overload(False)
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    scheduling.note_overload(False)  # nothing is served any more
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_system_that_does_not_allow_it_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    with LoopPriority().favouring_workers():
        pass


def test_system_without_scheduling_policies_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "SCHED_BATCH", raising=False)
    with LoopPriority().favouring_workers():
        pass
