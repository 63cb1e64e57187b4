"""The service as a process of its own: its workers, its log, what it holds of the system, and its counters."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.process_tree import children_by_parent, proportional_bytes

_ROOT = Path(__file__).resolve().parents[2]
_POLL_S = 0.02


@dataclass(frozen=True)
class Footprint:
    """What all processes of the service hold together.

    Attributes:
        resident_bytes: memory; what several of them share is counted once.
        server_bytes: of the service without its workers.
        files: open file descriptors.
        threads: of the system.
        processes: the service itself and its workers.
    """

    resident_bytes: int
    server_bytes: int
    files: int
    threads: int
    processes: int


class ServiceProcess:
    """`python -m service serve`, started at once.

    Args:
        model: folder of the artifact.
        port: to listen on.
        cache: folder for what is made for this machine.
        log: file that it writes its log to.
        flags: of the command line, beyond those.
    """

    def __init__(self, model: Path, port: int, cache: Path, log: Path, flags: Sequence[str]) -> None:
        self._log = log
        command = [sys.executable, "-m", "service", "serve", "--model", str(model), "--port", str(port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIG_")}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--cache", str(cache), *flags],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the caller, which then stops the service
            )

    def wait_until_it_listens(self, within_s: float) -> None:
        """Return when it takes connections.

        Raises:
            RuntimeError: it has ended, or does not.
        """
        if not wait_until(lambda: "running on" in self.log() or not self.is_running, within_s) or not self.is_running:
            raise RuntimeError(f"the service does not start; its log:\n{self.log()}")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """The process ids of its workers, oldest first."""
        return sorted(children_by_parent()[self._process.pid])

    def replaced(self) -> list[int]:
        """The workers that have taken the place of another."""
        return [int(pid) for pid in re.findall(r"worker process (\d+) has taken the place of", self.log())]

    def footprint(self) -> Footprint:
        """What it holds now."""
        pids = [self._process.pid, *self.workers()]
        return Footprint(
            sum(proportional_bytes(pid) for pid in pids),
            proportional_bytes(self._process.pid),
            sum(_entries(pid, "fd") for pid in pids),
            sum(_entries(pid, "task") for pid in pids),
            len(pids),
        )

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.send_signal(signal.SIGTERM)

    def exit_status(self, within_s: float) -> int | None:
        """Its exit status once it has ended; None where it does not in time."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None

    def kill_alone(self) -> None:
        """End it by force, and see whether its workers notice."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it and its workers by force, if it runs."""
        for pid in [self._process.pid, *self.workers()] if self.is_running else []:
            send(pid, signal.SIGKILL)
        self._process.wait()


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False where there is no such process any more."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; one that has may still be there for its parent to see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait for a condition; False where it does not come about in time. Not for the event loop."""
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(_POLL_S)
    return True


def _entries(pid: int, folder: str) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/{folder}").iterdir()))
    except OSError:
        return 0  # it has ended meanwhile
