from __future__ import annotations

from threading import RLock, Thread

import pytest

from service.engine import idle as module
from service.engine.idle import Idle
from tests.runtimes import PATIENCE_S, wait_until


class Sleepers:
    """Threads that wait one after the other, and the order in which they were woken."""

    def __init__(self, count: int) -> None:
        self.lock = RLock()
        self.idle = Idle(self.lock)
        self.woken: list[int] = []
        self.threads = [Thread(target=self._sleep, args=(number,), daemon=True) for number in range(count)]
        for number, thread in enumerate(self.threads, start=1):
            thread.start()
            wait_until(lambda number=number: len(self.idle) == number)  # type: ignore[misc]

    def _sleep(self, number: int) -> None:
        with self.lock:
            assert self.idle.wait()
            self.woken.append(number)


def test_the_one_that_came_last_is_woken_first() -> None:
    sleepers = Sleepers(3)
    for left in (2, 1, 0):
        with sleepers.lock:
            sleepers.idle.wake()
        wait_until(lambda left=left: len(sleepers.woken) == 3 - left)  # type: ignore[misc]
    assert sleepers.woken == [2, 1, 0]


def test_all_are_woken_together() -> None:
    sleepers = Sleepers(3)
    with sleepers.lock:
        sleepers.idle.wake_all()
    for thread in sleepers.threads:
        thread.join(PATIENCE_S)
    assert sorted(sleepers.woken) == [0, 1, 2]
    assert len(sleepers.idle) == 0


def test_thread_is_idle_until_it_has_the_lock_again() -> None:
    sleepers = Sleepers(1)
    with sleepers.lock:
        sleepers.idle.wake()
        assert len(sleepers.idle) == 1
    sleepers.threads[0].join(PATIENCE_S)
    assert len(sleepers.idle) == 0


@pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0])
def test_whoever_is_not_woken_in_time_goes_on(seconds: float) -> None:
    lock = RLock()
    idle = Idle(lock)
    with lock:
        assert not idle.wait(seconds)
        assert len(idle) == 0


def test_waking_nobody_is_not_remembered() -> None:
    lock = RLock()
    idle = Idle(lock)
    with lock:
        idle.wake()
        idle.wake_all()
        assert not idle.wait(0.0)


class LateBell:
    """Its time is over in the moment it is rung: whoever waited finds that out only when it has the lock again."""

    idle: Idle
    rung = False

    def acquire(self, timeout: float | None = None) -> bool:
        if timeout is None:
            return True
        with self.idle._lock:
            self.idle.wake()
        return False

    def release(self) -> None:
        self.rung = True


def test_thread_that_is_woken_as_its_time_is_over_counts_as_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Lock", LateBell)
    lock = RLock()
    idle = LateBell.idle = Idle(lock)
    with lock:
        assert idle.wait(1.0)  # or what it was woken for would be nobody's
        assert len(idle) == 0
