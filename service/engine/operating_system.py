"""What Linux and its C library tell of a process and do for it. Elsewhere nothing is told, and nothing done."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # of prctl(2)


def is_suspended(pid: int) -> bool:
    """Whether a process was stopped by a signal or a debugger, and so does nothing until it is continued."""
    try:
        # The state is the field after the name, which stands in parentheses and may hold some itself: proc(5).
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return False
    return state in (b"T", b"t")


def end_with_parent() -> None:
    """Have this process killed when the thread that started it ends, even while it is suspended or runs no Python."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def bury_orphans(own: Container[int | None]) -> None:
    """Have processes go that have ended, and that this one has not started: those of processes that have ended.

    They come to the first process of a container, and are there until it asks how they ended.

    Args:
        own: processes that somebody else waits for.
    """
    with suppress(ChildProcessError):  # there are none
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in own:
            os.waitpid(ended.si_pid, 0)


def forbid_new_privileges() -> None:
    """Have no program that this process starts, or its children, get privileges that it has not itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def release_memory() -> None:
    """Give memory that is free within this process back to the system, which the C library would rather keep."""
    with suppress(AttributeError):  # of other libraries than glibc
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Memory that this process has in use, 0 where the system does not tell."""
    return _memory_bytes(1)


def address_space_bytes() -> int:
    """Memory that this process has asked for, in use or not; 0 where the system does not tell."""
    return _memory_bytes(0)


def _memory_bytes(field: int) -> int:
    """A field of /proc/self/statm, which counts pages: proc(5)."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[field]) * resource.getpagesize()
    except OSError:
        return 0
