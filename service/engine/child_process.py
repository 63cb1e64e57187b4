"""Processes of this program's own, and what they print: libraries written in C print whatever they like."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Thread

_log = logging.getLogger(__name__)

# Of a line, and of the lines within some time, so much is logged: an image could make a library print without end.
_MOST_BYTES, _MOST_LINES, _WITHIN_S = 500, 20, 60.0


_STANDARD_ERROR = 2


def start_module(
    module: str, descriptors: Sequence[int], who: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE DESCRIPTOR... LOG`, where LOG is this process's standard error.

    Args:
        module: to run.
        descriptors: of files that it inherits.
        who: it is, in the log.
        environment: added to that of this process.

    Raises:
        OSError: the system does not let it start.
    """
    printed, prints = os.pipe()
    log = os.dup(_STANDARD_ERROR)
    passed = [*descriptors, log]
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, passed)],
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stderr=prints,
            env={**os.environ, **environment} if environment else None,
        )
    except OSError:
        os.close(printed)
        raise
    finally:
        os.close(prints)
        os.close(log)
    log_printed(printed, f"{who} {process.pid}")
    return process


def log_printed(source: int, who: str, clock: Callable[[], float] = time.monotonic) -> Thread:
    """Log what comes from a pipe as lines of the service's own log, in a thread, until the pipe is closed.

    Args:
        source: file descriptor of the pipe; closed in the end.
        who: prints, in each line.
        clock: seconds that never go back.
    """
    thread = Thread(target=_read, args=(source, _Lines(who, clock)), name=f"printed by {who}", daemon=True)
    thread.start()
    return thread


def _read(source: int, lines: _Lines) -> None:
    rest = b""
    with os.fdopen(source, "rb", buffering=0) as pipe:
        while data := pipe.read(65_536):
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                lines.log(line)
            rest = rest[: _MOST_BYTES + 1]
    lines.log(rest)
    lines.tell_left_out()


class _Lines:
    def __init__(self, who: str, clock: Callable[[], float]) -> None:
        self._who = who
        self._clock = clock
        self._since = -_WITHIN_S
        self._logged = self._left_out = 0

    def log(self, line: bytes) -> None:
        text = line.rstrip()
        if not text:
            return
        if self._clock() - self._since >= _WITHIN_S:
            self.tell_left_out()
            self._since, self._logged = self._clock(), 0
        if self._logged == _MOST_LINES:
            self._left_out += 1
            return
        self._logged += 1
        cut = text[:_MOST_BYTES].decode("utf-8", "backslashreplace") + ("…" if len(text) > _MOST_BYTES else "")
        _log.warning("%s printed: %s", self._who, cut)

    def tell_left_out(self) -> None:
        if self._left_out:
            _log.warning("%s printed %d lines more", self._who, self._left_out)
        self._left_out = 0
