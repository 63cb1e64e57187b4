"""How the system shares the processor among threads."""

from __future__ import annotations

import os


def set_policy(name: str) -> bool:
    """Set the calling thread's scheduling policy, where the system has it and allows it.

    Threads and processes have that of the thread that started them until they set their own.
    """
    policy = getattr(os, name, None)  # on Linux only
    if policy is None:
        return False
    try:
        os.sched_setscheduler(0, policy, os.sched_param(0))
    except OSError:
        return False
    return True
