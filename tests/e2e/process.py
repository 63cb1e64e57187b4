"""The server as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

import httpx

from tests.runtimes import PATIENCE_S
from tests.told_metrics import told

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """The environment without settings of the service that a developer may have made."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("AIG_")}


class ServerProcess:
    """`python -m service` on a free port.

    Args:
        model: folder of the artifact.
        flags: of the command `serve`.
        module: in the place of `service`.

    Attributes:
        lines: what it wrote to its standard error.
    """

    def __init__(self, model: Path, *flags: str, module: str = "service") -> None:
        self.lines: list[str] = []
        command = [sys.executable, "-m", module, "serve", "--model", str(model), "--port", "0", *flags]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # as a shell does, for signals that reach all of a group
        )
        self._listening = Event()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        # The first import of the libraries can take long where the disk is slow.
        assert self._listening.wait(60), self.lines
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        (line,) = [line for line in self.lines if "running on" in line]
        return int(re.search(r":(\d+)", line.split("running on")[1])[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        """A client with one connection that is kept open."""
        # Without certificates: loading them takes longer than any request here, and there is nothing to verify.
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False, verify=False)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def signal_group(self, number: signal.Signals) -> None:
        """As a terminal does, to the server and all it has started."""
        os.killpg(self._process.pid, number)

    def exit_status(self) -> int:
        """Wait until the process has ended."""
        return self._process.wait(PATIENCE_S)

    def metric(self, name: str, **labels: str) -> float:
        """A sample as /metrics tells it now; 0 where there is none."""
        with self.client() as client:
            samples = told(client.get("/metrics").text)
        return samples.get((name, frozenset(labels.items())), 0.0)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())
            if "running on" in line:
                self._listening.set()
        self._listening.set()  # the process has ended; whoever waits for it sees so by its lines
