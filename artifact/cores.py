"""How many cores this process may use: those it may run on, or fewer where a quota of its control groups says so."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# What the kernel writes into these files is shorter.
_MOST_BYTES = 1_048_576


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may use, at least 1.

    A quota is processor time per period (control groups of version 1 and 2, `Documentation/admin-guide/cgroup-v1` and
    `cgroup-v2.rst` of Linux): that of the process's own group and of every group around it holds. What is missing or
    malformed sets no limit.

    Args:
        root: folder in which `proc` and the mount points lie.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        cores = os.cpu_count() or 1
    quotas = [quota for group in _control_groups(root) if (quota := _quota(group)) is not None]
    return max(1, min([cores, *map(math.ceil, quotas)]))


def _control_groups(root: Path) -> Iterator[Path]:
    """Folders of the groups that may limit the processor: the process's own, and those around it that are mounted."""
    for kind, own in _own_groups(root).items():
        mounts = _mounts(root, kind)
        # A container may see its group mounted, but be told a path that starts elsewhere: what is mounted is its own.
        inside = [(folder, below) for folder, top in mounts if (below := _below(own, top)) is not None]
        for folder, below in inside or [(folder, PurePosixPath()) for folder, _ in mounts]:
            yield from (folder / group for group in (below, *below.parents))


def _own_groups(root: Path) -> dict[str, str]:
    """Path of the process's group in the hierarchy of version 2 and in that of version 1's `cpu`, by file system."""
    groups = {}
    for line in _read(root / "proc/self/cgroup").split("\n"):  # such as 4:cpu,cpuacct:/path, and 0::/path in version 2
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers and path:
            groups["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            groups["cgroup"] = path
    return groups


def _mounts(root: Path, kind: str) -> list[tuple[Path, str]]:
    """Where the hierarchy is mounted, and which of its groups lies there (proc_pid_mountinfo(5))."""
    mounts = []
    for line in _read(root / "proc/self/mountinfo").split("\n"):
        place, _, source = line.partition(" - ")
        places, sources = place.split(" "), source.split(" ")
        if len(places) < 6 or len(sources) < 3 or sources[0] != kind:
            continue
        if kind == "cgroup2" or "cpu" in sources[2].split(","):
            top, folder = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path) for path in places[3:5])
            mounts.append((root / folder.lstrip("/"), top))
    return mounts


def _below(path: str, top: str) -> PurePosixPath | None:
    """The path from the group `top` on; None where it does not lie in it."""
    group = PurePosixPath(path)
    return group.relative_to(top) if group.is_relative_to(top) and ".." not in group.parts else None


def _quota(group: Path) -> float | None:
    """Cores' worth of time that the group grants; None where it sets no limit."""
    limit = _read(group / "cpu.max") or _read(group / "cpu.cfs_quota_us") + " " + _read(group / "cpu.cfs_period_us")
    try:
        quota, period = map(int, limit.split())  # no limit is "max" in version 2 and -1 in version 1
        return quota / period if quota > 0 and period > 0 else None
    except (ValueError, OverflowError):
        return None


def _read(path: Path) -> str:
    """The text of the file, or none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return os.fsdecode(file.read(_MOST_BYTES))
    except (OSError, ValueError):  # a path with a null byte is a ValueError
        return ""
