"""Answers after which a connection ends: to clients that are still sending, and those of a server that stops.

A connection that is closed while data comes in is reset, which may take the answer from a client that has not read it
yet (RFC 9112, section 9.6). So the server goes on receiving for a while and discards the data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What is still received of a body whose request has its answer: bytes, seconds.
_MOST_BYTES, _LONGEST_S = 64_000_000, 4.0
# The same where it has come too slowly already.
_TOO_SLOW_S = 1.0
# A body so short has mostly come already, so that the connection can be kept.
_SHORT_BYTES = 65_536
_CLOSE = (b"connection", b"close")


class LastAnswer:
    """Middleware that announces the end of a connection, and gives the client time to read the answer before it.

    Args:
        app: what answers.
        stopping: whether the server is about to stop.
    """

    def __init__(self, app: ASGIApp, stopping: Callable[[], bool]) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._stopping)
        await self._app(scope, exchange.receive, exchange.send)
        await exchange.end()


class _Exchange:
    """One request and its answer.

    Args:
        scope, receive, send: of ASGI.
        stopping: whether the server is about to stop.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, stopping: Callable[[], bool]) -> None:
        self._receive = receive
        self._send = send
        self._stopping = stopping
        self._body_comes, self._is_short, self._is_held_back = _announced(scope)
        self._is_unended = False
        self._longest_s = _LONGEST_S

    async def receive(self) -> Message:
        """What comes, as ASGI has it."""
        self._is_held_back = False  # now the server asks the client for it
        message = await self._receive()
        if not message.get("more_body", False):  # at its end, and when the client has left
            self._body_comes = False
        return message

    async def send(self, message: Message) -> None:
        """Send what the application answers."""
        if message["type"] == "http.response.start":
            if message["status"] == 408:  # RFC 9110, section 15.5.9
                self._is_short, self._longest_s = False, _TOO_SLOW_S
            if self._stopping() or (self._body_comes and (self._is_held_back or not self._is_short)):
                message["headers"] = [*message.get("headers", ()), _CLOSE]
        elif self._body_comes and not self._is_held_back and not message.get("more_body", False):
            self._is_unended = True
            message["more_body"] = True
        await self._send(message)

    async def end(self) -> None:
        """End the exchange when the answer was sent before the whole body had arrived."""
        if not self._is_unended:
            return
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._longest_s):
                while self._body_comes and dropped < _MOST_BYTES:
                    dropped += len((await self.receive()).get("body", b""))
        await self._send({"type": "http.response.body", "body": b""})


def _announced(scope: Scope) -> tuple[bool, bool, bool]:
    """Whether a body comes, whether it is short, and whether the client sends it only when it is asked for it."""
    comes = short = expects = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
            comes, short = length > 0, length <= _SHORT_BYTES
        elif name == b"transfer-encoding":
            comes = True
        elif name == b"expect":
            expects = value.lower() == b"100-continue" and scope["http_version"] == "1.1"
    return comes, short, expects
