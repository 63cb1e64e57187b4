"""What every attack has to leave as it was: others are served meanwhile, and nothing is left of it afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.process import ROOT
from tests.hostile.victim import Victim
from tests.hostile.watcher import ADDRESS
from tests.hostile.wire import ask, post
from tests.image_files import pngs

# How long others may wait for /healthz, how long the server may keep connections of an attack, in seconds, and how much
# larger its processes may be afterwards, in megabytes.
LONGEST_WAIT_S, LONGEST_OPEN_S, MOST_MB = 1.0, 30.0, 50.0
# The files that the server may have open for who watches.
_WATCHING = 2


@contextmanager
def nobody_is_harmed(victim: Victim, most_mb_meanwhile: float = 200.0) -> Iterator[None]:
    """Attack a server in the `with`; what it leaves open there, the server has to close.

    Args:
        victim: the server.
        most_mb_meanwhile: by how many megabytes the server may grow for as long as the attack lasts.
    """
    assert ask(victim.port, post(pngs(1)[0])).status == 200
    before, logged, files = victim.resident_mb(), len(victim.lines), victim.files()
    victim.forget_peak()
    command = [sys.executable, "-m", "tests.hostile.watcher", str(victim.port), str(victim.pid)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout
        assert watcher.stdout.readline() == "watches\n"
        yield
        ended = time.monotonic()
        # Of a connection that was reset the system tells nothing any more, but the server may not have noticed.
        while (left := victim.connections(but_of=ADDRESS) or victim.files() > files + _WATCHING) and (
            time.monotonic() < ended + LONGEST_OPEN_S
        ):
            time.sleep(0.1)
        told, _ = watcher.communicate()
    waits = [float(wait) for wait in told.split()]
    assert max(waits) < LONGEST_WAIT_S, f"of {len(waits)}, the longest are {sorted(waits)[-5:]}"
    assert not left, f"of {left} something is open after {LONGEST_OPEN_S} s"
    assert ask(victim.port, post(pngs(1)[0])).status == 200
    assert victim.lines[logged:] == []  # which an attacker could fill the disk with
    while _grown_mb(before, victim.resident_mb()) > MOST_MB and time.monotonic() < ended + LONGEST_OPEN_S:
        time.sleep(0.1)  # what is free is given back to the system after a while
    after = victim.resident_mb()
    assert _grown_mb(before, after) < MOST_MB, (before, after)
    assert victim.peak_mb() - before[0] < most_mb_meanwhile


def _grown_mb(before: list[float], after: list[float]) -> float:
    """By how much that process has grown which has grown most; no process may have come or gone."""
    return max(now - then for now, then in zip(after, before, strict=True))
