"""A measurement in parts: what is done stays done, what would not fit is left for the next run, and none ends another.

Every part is a process of its own, since nothing more can be run on a GPU in a process in which it has failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
# For a part to end what it has started, after it is asked to.
_GRACE_S = 15.0
_MOST_TOLD = 1500


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: of it, and of the file of its result.
        seconds: that it takes at most, as far as is known; it is not begun with less time left.
    """

    name: str
    seconds: float


class PartFailed(Exception):  # noqa: N818
    """A part ended without a result; the message says how."""


Execute = Callable[[Part, float], None]
"""Has a part write its result, within so many seconds; raises PartFailed where it does not."""


def results(folder: Path, parts: Sequence[Part]) -> dict[str, Result]:
    """What was measured so far, in the order of the parts."""
    found = {}
    for part in parts:
        try:
            found[part.name] = json.loads((folder / f"{part.name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
    return found


def write_result(folder: Path, name: str, result: Result) -> None:
    """Keep the result of a part, whole or not at all."""
    unfinished = folder / f"{name}.json.part"
    unfinished.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(folder / f"{name}.json")


def run_parts(
    parts: Sequence[Part],
    folder: Path,
    seconds: float,
    execute: Execute,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """Run the parts without a result in `folder`, in order, as far as the time allows.

    Args:
        parts: of which one that failed in an earlier run is tried again.
        folder: of the results.
        seconds: for all.
        execute: runs one.
        clock: in seconds.

    Returns:
        Why there is no result of a part, by its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ends, done, missing = clock() + seconds, results(folder, parts), {}
    for part in parts:
        if part.name in done:
            continue
        left = ends - clock()
        if left < part.seconds:
            missing[part.name] = f"not begun: {left:.0f} s were left, and it may take {part.seconds:.0f} s"
            continue
        print(f"{part.name} ... ({left:.0f} s left)", file=sys.stderr, flush=True)
        try:
            execute(part, left)
        except PartFailed as error:
            missing[part.name] = str(error)
    return missing


def in_process(arguments: Sequence[str], part: Part, limit_s: float) -> None:
    """Run `python -m bench.gpu --part` with a part's name and other arguments.

    Raises:
        PartFailed: it failed, or took too long.
    """
    command = [sys.executable, "-m", "bench.gpu", "--part", part.name, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        told, _ = process.communicate(timeout=max(0.1, limit_s - _GRACE_S))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it ends a server that it has started
        try:
            process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        raise PartFailed(f"it was not done after {limit_s:.0f} s") from None
    if process.returncode:
        text = told.decode(errors="replace").strip()
        raise PartFailed(f"exit status {process.returncode}: {(text.splitlines() or [''])[-1]}\n{text[-_MOST_TOLD:]}")
