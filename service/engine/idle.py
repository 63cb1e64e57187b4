"""Threads that have nothing to do, and which of them is woken first."""

from __future__ import annotations

from threading import Lock, RLock


class Idle:
    """A stack of waiting threads: the one that came last is woken first.

    What it ran is still in the caches of its core, where one that has waited for long finds its own no more. All
    methods are called with the lock held, once.

    Args:
        lock: of what the threads wait for a change of.
    """

    def __init__(self, lock: RLock) -> None:
        self._lock = lock
        self._waiting: list[Lock] = []
        self._threads = 0

    def __len__(self) -> int:
        """How many threads have nothing to do, those that were woken but have not got the lock yet included."""
        return self._threads

    def wait(self, seconds: float | None = None) -> bool:
        """Let go of the lock until this thread is woken, and say whether it was, or so many seconds have passed."""
        bell = Lock()
        bell.acquire()
        self._waiting.append(bell)
        self._threads += 1
        self._lock.release()
        try:
            rung = bell.acquire() if seconds is None else bell.acquire(timeout=max(0.0, seconds))
        finally:
            self._lock.acquire()
            self._threads -= 1
        if not rung and bell in self._waiting:
            self._waiting.remove(bell)
            return False
        return True  # even if it was woken only while it took the lock: nobody else was in its place

    def wake(self) -> None:
        """Wake the thread that came last, if there is one."""
        if self._waiting:
            self._waiting.pop().release()

    def wake_all(self) -> None:
        """Wake all threads."""
        while self._waiting:
            self.wake()
