"""What a front end and the process above it say to each other: questions and answers, a line of JSON each.

Both may ask. JSON of the standard library, which knows numbers that are infinite or none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

_log = logging.getLogger(__name__)

# Far more than the metrics of as many models as there may be, in bytes.
_LONGEST_LINE = 1 << 26


class NoAnswer(Exception):  # noqa: N818 (a state, told as one)
    """The other process did not answer in time, has ended, or could not do what it was asked."""


class Talk:
    """One side of a connection.

    Args:
        answer: answers what the other side asks: told what, and about what.
    """

    def __init__(self, answer: Callable[[str, Any], Awaitable[Any]]) -> None:
        self._answer = answer
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, connection: socket.socket) -> None:
        """Begin, on the running event loop."""
        reader, self._writer = await asyncio.open_unix_connection(sock=connection, limit=_LONGEST_LINE)
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    async def ended(self) -> None:
        """Wait until the other side has hung up, and all it said was read."""
        if self._reading:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(self._reading)

    def close(self) -> None:
        """Hang up."""
        if self._writer:
            self._writer.close()

    def tell(self, what: str, about: Any = None) -> None:
        """Say something that wants no answer; nothing where the other side has hung up."""
        self._send({"what": what, "about": about})

    async def ask(self, what: str, about: Any = None, within_s: float = 1.0) -> Any:
        """Ask something and wait for the answer, for at most `within_s` seconds.

        Raises:
            NoAnswer: there is none.
        """
        if self._reading is None or self._reading.done():
            raise NoAnswer("has ended")
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"ask": number, "what": what, "about": about})
            async with asyncio.timeout(within_s):
                return await answer
        except TimeoutError:
            raise NoAnswer("does not answer") from None
        finally:
            del self._asked[number]

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        except OSError:  # it has ended in the middle of something
            pass
        except ValueError:  # a line that is too long, or none
            _log.exception("what another process said cannot be read")
        finally:
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(NoAnswer("has ended"))
            self.close()

    def _take(self, message: dict[str, Any]) -> None:
        if "what" in message:
            task = asyncio.get_running_loop().create_task(self._do(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (answer := self._asked.get(message["told"])) and not answer.done():
            if "failed" in message:
                answer.set_exception(NoAnswer(message["failed"]))
            else:
                answer.set_result(message["value"])

    async def _do(self, message: dict[str, Any]) -> None:
        told = {"told": message.get("ask")}
        try:
            told["value"] = await self._answer(message["what"], message["about"])
        except Exception:  # lest the other side wait for ever
            _log.exception("%s could not be answered", message["what"])
            told["failed"] = "has failed; its log says why"
        if told["told"] is not None:
            self._send(told)
