"""One front end as the process above sees it: a process, and the talk with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from service.frontends.talk import Talk
from service.settings import Settings

# How long to wait for what a process has said that has ended, in seconds.
_LAST_WORDS_S = 1.0


class FrontEnd:
    """A front end from its start to its end.

    Args:
        number: of the front end; the one that replaces it has the same.
        answer: answers what it asks: told which front end, what, and about what.

    Attributes:
        serving: whether it takes connections.
        served_at: since when it did, by the monotonic clock; None before.
        over: whether it has ended.
        problem: why it is not ready; None where it is.
        models: versions that it serves; None where there is no folder of them.
    """

    def __init__(self, number: int, answer: Callable[[FrontEnd, str, Any], Awaitable[Any]]) -> None:
        self.number = number
        self.talk = Talk(lambda what, about: answer(self, what, about))
        self.serving = self.over = False
        self.served_at: float | None = None
        self.problem: str | None = None
        self.models: Sequence[tuple[str, str]] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, settings: Settings, count: int, models: Sequence[tuple[str, str]] | None) -> None:
        """Start it.

        Args:
            settings: of it.
            count: of all front ends.
            models: versions to serve at first; None for all there are.

        Raises:
            OSError: the system does not let it start.
        """
        here, there = socket.socketpair()
        with there:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "service.frontends.child", str(there.fileno())),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=[there.fileno()],
                process_group=0,  # a terminal's signals reach it through the process above, and only once
            )
        await self.talk.open(here)
        told = {"number": self.number, "count": count, "models": models, "settings": settings.model_dump(mode="json")}
        told["parent"] = os.getpid()
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended already, which `ended` tells
            self._process.stdin.write(json.dumps(told).encode())
            self._process.stdin.close()

    @property
    def pid(self) -> int | None:
        """Of its process."""
        return self._process.pid if self._process else None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended and all it said was heard; return its exit status."""
        assert self._process is not None
        status = await self._process.wait()
        self.serving = False
        with suppress(TimeoutError):
            await asyncio.wait_for(self.talk.ended(), _LAST_WORDS_S)
        self.talk.close()
        self.serving, self.over = False, True  # the first again, as what it said last may have been heard meanwhile
        return status
