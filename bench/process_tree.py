"""A program with every process it starts, daemons included: started, weighed and ended together. Linux only (/proc)."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# Runs the program and outlives it, so that the program's processes always have an ancestor by which to find them.
_KEEPER = ("sh", "-c", '"$@"; exec sleep infinity', "keeper")
_PR_SET_CHILD_SUBREAPER = 36

_STOP_SECONDS = 10.0  # for a program to end by itself and to remove its shared memory
_KILL_SECONDS = 20.0


class ProcessTree:
    """The processes under a keeper that adopts those whose own parent ends, so that none can leave."""

    def __init__(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], output: IO[bytes]) -> None:
        self._keeper = subprocess.Popen(
            [*_KEEPER, *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the caller, which then stops the tree
            preexec_fn=_adopt_orphans,
        )

    def processes(self) -> list[int]:
        """The ids of all that live, without the keeper."""
        children = children_by_parent()
        found: list[int] = []
        unvisited = [self._keeper.pid]
        while unvisited:
            offspring = children[unvisited.pop()]
            found += offspring
            unvisited += offspring
        return found

    def resident_bytes(self) -> int:
        """Memory of all of them together; what several of them share is counted once (PSS)."""
        return sum(proportional_bytes(pid) for pid in self.processes())

    def stop(self) -> None:
        """Ask the program to end, then kill what is left, again and again until nothing is."""
        for pid in children_by_parent()[self._keeper.pid]:
            _send(pid, signal.SIGINT)  # as Ctrl-C would: what servers clean up after
        asked = time.monotonic()
        while left := self.processes():
            waited = time.monotonic() - asked
            if waited > _STOP_SECONDS + _KILL_SECONDS:
                raise RuntimeError(f"processes {left} survive SIGKILL")
            if waited > _STOP_SECONDS:
                for pid in left:
                    _send(pid, signal.SIGKILL)
            time.sleep(0.05)
        self._keeper.kill()
        self._keeper.wait()


def _adopt_orphans() -> None:
    """Make this process the parent of every descendant that outlives its own, as daemons do."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended meanwhile


def children_by_parent() -> defaultdict[int, list[int]]:
    """Every living process by its parent."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z":
            children[int(parent)].append(int(stat.parent.name))
    return children


def proportional_bytes(pid: int) -> int:
    """Memory of a process, in which what several share is divided among them (PSS); 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended meanwhile
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
