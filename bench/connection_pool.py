"""Keep-alive HTTP/1.1 connections that carry prepared requests, at a few microseconds of Python each."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

# Servers drop connections that are idle for some seconds (often 5). One dropped just as a request is sent on it looks
# like a failure of the server, so idle ones are closed here long before.
_MOST_IDLE_S = 1.0
_SWEEP_S = 0.1  # between looks for requests whose time is up


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way; times are of time.monotonic().

    Attributes:
        body: index of the body it carries.
        scheduled: when it should be sent; its latency counts from here.
        taken: when the generator took it up.
        sampled: whether the body of its answer is kept.
        sent: when it was written to a connection; NaN if it never was.
        finished: when it was answered or had failed.
        status: of the answer; 0 if there is none.
        retry_after: whether the answer had that header.
        answer: the body of the answer, where sampled.
    """

    body: int
    scheduled: float
    taken: float
    sampled: bool = False
    sent: float = float("nan")
    finished: float = float("nan")
    status: int = 0
    retry_after: bool = False
    answer: bytes = b""
    connection: Connection | None = None


class Connection(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._has_length = False
        self._answering = False
        self.transport: asyncio.Transport | None = None
        self.request: Request | None = None
        self.idle_since = 0.0

    def send(self, request: Request, message: bytes) -> None:
        """Write the request; its answer, or the connection's end, finishes it."""
        assert self.transport is not None
        self.request, request.connection = request, self
        self._has_length = self._answering = False
        request.sent = time.monotonic()
        self.transport.write(message)

    def abort(self) -> None:
        """Close without waiting for what is still to be written."""
        assert self.transport is not None
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self.request is not None and self._answering and not self._has_length:
            self._answered(keep=False)  # the end of the connection is the end of an answer that tells no length
        self._pool.lost(self)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002  the parser passes both
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._has_length = True
        elif name == b"retry-after" and self.request is not None:
            self.request.retry_after = True

    def on_headers_complete(self) -> None:
        self._answering = True

    def on_body(self, body: bytes) -> None:
        if self.request is not None and self.request.sampled:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        self._answered(self._parser.should_keep_alive())

    def _answered(self, keep: bool) -> None:
        request, self.request = self.request, None
        self._answering = False
        if request is None:  # an answer to nothing, such as a server's notice that the connection was idle too long
            self.abort()
            return
        request.status = self._parser.get_status_code()
        if request.sampled:
            request.answer = b"".join(self._chunks)
            self._chunks.clear()
        if not keep:
            self.abort()
        self._pool.answered(self, request, keep)


_Opening = asyncio.Task[tuple[asyncio.Transport, Connection]]


class ConnectionPool:
    """Sends requests on idle connections, opening more as needed up to `most`; beyond, requests wait in order.

    `finished` is called with every request once: answered, failed with its connection, or `timeout_s` after it was
    scheduled.
    """

    def __init__(
        self,
        url: str,
        bodies: Sequence[bytes],
        headers: Mapping[str, str],
        most: int,
        timeout_s: float,
        finished: Callable[[Request], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._address = _address(url)
        self._messages = [_message(url, body, headers) for body in bodies]
        self._most, self._timeout_s, self._finished = most, timeout_s, finished
        self._outstanding: dict[Request, None] = {}  # oldest first
        self._waiting: deque[Request] = deque()
        self._idle: deque[Connection] = deque()  # the one used last is used next
        self._connections: set[Connection] = set()
        self._opening: set[_Opening] = set()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    @property
    def outstanding(self) -> int:
        """Requests that are not finished."""
        return len(self._outstanding)

    def submit(self, request: Request) -> None:
        """Send the request now, or as soon as there is a connection."""
        self._outstanding[request] = None
        if self._idle:
            self._idle.pop().send(request, self._messages[request.body])
        else:
            self._waiting.append(request)
            self._open_more()

    async def close(self) -> None:
        """Close every connection, whatever is on its way."""
        self._sweeper.cancel()
        self._waiting.clear()
        self._outstanding.clear()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in self._connections:
            connection.request = None
            connection.abort()
        while self._connections:
            await asyncio.sleep(0.001)

    # What the connections call.

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._free(connection)

    def answered(self, connection: Connection, request: Request, keep: bool) -> None:
        if keep:
            self._free(connection)
        self._finish(request)

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection.request is not None:
            self._finish(connection.request)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._open_more()

    def _free(self, connection: Connection) -> None:
        """Give the connection the request that waits longest, if any does."""
        while self._waiting:
            request = self._waiting.popleft()
            if request in self._outstanding:  # else its time was up
                connection.send(request, self._messages[request.body])
                return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def _finish(self, request: Request) -> None:
        """Count the request as finished, with the status it has."""
        del self._outstanding[request]
        request.finished = time.monotonic()
        request.connection = None
        self._finished(request)

    def _open_more(self) -> None:
        while len(self._waiting) > len(self._opening) and len(self._connections) + len(self._opening) < self._most:
            task = self._loop.create_task(self._loop.create_connection(lambda: Connection(self), *self._address))
            self._opening.add(task)
            task.add_done_callback(self._tried_to_open)

    def _tried_to_open(self, task: _Opening) -> None:
        """Where that failed, so has the request that waits longest."""
        self._opening.discard(task)
        if task.cancelled():
            return
        if task.exception() is not None and self._waiting:
            request = self._waiting.popleft()
            if request in self._outstanding:  # else its time was up
                self._finish(request)
        self._open_more()

    def _sweep(self) -> None:
        """Finish the requests whose time is up, and close connections that were idle for long."""
        now = time.monotonic()
        while self._outstanding and (oldest := next(iter(self._outstanding))).scheduled + self._timeout_s <= now:
            if oldest.connection is not None:
                oldest.connection.request = None
                oldest.connection.abort()
            self._finish(oldest)
        while self._idle and self._idle[0].idle_since + _MOST_IDLE_S < now:
            self._idle.popleft().abort()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)


def _address(url: str) -> tuple[str, int]:
    """The numeric address of the URL's server, looked up once; an IPv4 one if there is."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"not an http:// URL: {url}")
    found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    _, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(address[0]), int(address[1])


def _message(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
