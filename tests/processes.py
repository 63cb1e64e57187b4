"""What the system tells of processes, any of which may end while it is asked. Linux only (/proc)."""

from __future__ import annotations

from pathlib import Path


def children(parent: int, zombies: bool = False) -> list[int]:
    """The processes that a process has started and that have not ended; with zombies if it has not seen their end."""
    stats = {int(path.parent.name): _stat(int(path.parent.name)) for path in Path("/proc").glob("[0-9]*/stat")}
    return sorted(pid for pid, (state, by) in stats.items() if by == parent and (zombies or state != "Z"))


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    return _stat(pid)[0] not in ("Z", "")


def command_line(pid: int) -> list[bytes]:
    """What it was started with; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def processor_s(pid: int) -> tuple[float, float]:
    """Seconds that the main thread of a process has run, and those that it waited for a core; 0 where nobody tells."""
    try:
        ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9


def _stat(pid: int) -> tuple[str, int]:
    """Its state, as a letter, and its parent; an empty state where it has ended."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "", 0
    return state, int(parent)
