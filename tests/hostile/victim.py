"""The server that is attacked, as the operating system sees it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from tests.e2e.process import ServerProcess

# Of a line of /proc/net/tcp, the columns.
_LOCAL, _REMOTE, _STATE, _INODE = 1, 2, 3, 9
_LISTENS = "0A"


class Victim(ServerProcess):
    """A server process that tells what it holds."""

    @property
    def pids(self) -> list[int]:
        """The server first, then all that it has started."""
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue  # it has ended
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        family = [self._process.pid]
        for pid in family:
            family += sorted(child for child, parent in parents.items() if parent == pid)
        return family

    def resident_mb(self) -> list[float]:
        """Resident memory of each process."""
        while True:
            with suppress(ProcessLookupError):  # one has ended meanwhile
                return [_megabytes(pid, "VmRSS") for pid in self.pids]

    def peak_mb(self) -> float:
        """The most resident memory that the server had since `forget_peak`."""
        return _megabytes(self._process.pid, "VmHWM")

    def forget_peak(self) -> None:
        """Begin to look for the most memory anew."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def files(self) -> int:
        """File descriptors that the server has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))  # noqa: PTH208 (names are enough, and faster)

    def connections(self, but_of: str) -> list[str]:
        """The other ends of the server's open connections, without those of one address."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        mine = f":{self.port:04X}"
        ends = [
            _address(line[_REMOTE])
            for line in lines
            # A connection that no process has any more has no inode.
            if line[_LOCAL].endswith(mine) and line[_STATE] != _LISTENS and line[_INODE] != "0"
        ]
        return [end for end in ends if not end.startswith(f"{but_of}:")]


def _megabytes(pid: int, field: str) -> float:
    try:
        told = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError as error:
        raise ProcessLookupError from error
    found = re.search(rf"^{field}:\s+(\d+) kB", told, re.MULTILINE)
    if found is None:
        raise ProcessLookupError  # a zombie has no memory
    return int(found[1]) / 1000


def _address(told: str) -> str:
    digits, port = told.split(":")
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(digits))) + f":{int(port, 16)}"
