"""How every benchmark tells its result: a table for people, then one line of JSON for programs."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from artifact.cores import usable_cores

_ROOT = Path(__file__).resolve().parent.parent
# What makes one processor fast where another is not; the rest of its dozens of flags says nothing here.
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    return "\n".join(lines)


def markdown(head: Sequence[str], *rows: Sequence[str]) -> str:
    """The table as pages of the documentation have it."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def print_result(ok: bool, result: dict[str, object]) -> int:
    """Print the last line; return the exit status."""
    print(json.dumps({"ok": ok, "commit": _commit(), "machine": machine(), **result}))
    return 0 if ok else 1


def machine() -> str:
    """Processor, its cores and what it can do, and the versions of the libraries measured."""
    name, flags = platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    except OSError:  # not on Linux
        pass
    cores = usable_cores()
    able = [flag for flag in _TELLING_FLAGS if flag in flags]
    libraries = [f"{library} {found}" for library in ("onnxruntime", "openvino") if (found := _version(library))]
    return f"{name}, {cores} cores, {' '.join(able)}; Python {platform.python_version()}, {', '.join(libraries)}"


def _commit() -> str:
    finished = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return finished.stdout.strip() or "unknown"


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
