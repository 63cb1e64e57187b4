"""A timer that fires within tens of microseconds; those of asyncio and uvloop are rounded to whole milliseconds.

Requests sent up to a millisecond late would show that millisecond as latency of the server.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _Setting(ctypes.Structure):
    """The kernel's struct itimerspec: a period, 0 for a timer that fires once, and the time it fires."""

    _fields_ = (
        ("period_s", ctypes.c_long),
        ("period_ns", ctypes.c_long),
        ("when_s", ctypes.c_long),
        ("when_ns", ctypes.c_long),
    )


class ArrivalTimer:
    """Calls `callback` once at the time last set, which is in seconds of time.monotonic().

    Made of a Linux timerfd; elsewhere it is the event loop's own timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop, self._callback = loop, callback
        self._descriptor = -1
        self._coarse: asyncio.TimerHandle | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if self._descriptor < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
            self._setting = _Setting()
            loop.add_reader(self._descriptor, self._expired)

    def set(self, when: float) -> None:
        """Fire at `when`, at once if that has passed."""
        if self._descriptor < 0:
            self._coarse = self._loop.call_at(self._loop.time() + when - time.monotonic(), self._callback)
            return
        self._setting.when_s = int(when)
        self._setting.when_ns = int(when % 1 * 1e9)
        if self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(self._setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """Never fire again."""
        if self._coarse is not None:
            self._coarse.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _expired(self) -> None:
        os.read(self._descriptor, 8)  # how often it fired; unread, the descriptor would stay readable
        self._callback()
