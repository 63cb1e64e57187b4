"""NVIDIA's compute-sanitizer over one run of a plan, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_ELSEWHERE = Path("/usr/local/cuda/bin/compute-sanitizer")
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)")
_MOST_TOLD = 1500


def sanitizer() -> str | None:
    """Where it is."""
    return shutil.which("compute-sanitizer") or (str(_ELSEWHERE) if _ELSEWHERE.exists() else None)


def check(model: Path, cache: Path, plan: str, tool: str, limit_s: float) -> dict[str, Any]:
    """What a tool of it finds, within so many seconds."""
    program = sanitizer()
    if program is None:
        return {"left_out": "compute-sanitizer is not installed"}
    watched = [sys.executable, "-m", "bench.gpu.one_run", str(model), str(cache), plan]
    try:
        done = subprocess.run(
            [program, "--tool", tool, *watched],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"left_out": f"it was not done after {limit_s:.0f} s"}
    return summary(done.stdout, done.returncode)


def summary(told: str, status: int) -> dict[str, Any]:
    """The errors it counted, and the end of what it said where there were some or where it failed."""
    found = _SUMMARY.search(told)
    errors = int(found[1]) if found else None
    if errors == 0 and not status:
        return {"errors": 0}
    return {"errors": errors, "exit_status": status, "told": told[-_MOST_TOLD:]}
