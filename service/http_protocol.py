"""HTTP at the socket: uvicorn's protocol, closed to clients that send too much, too slowly, or to no purpose.

uvicorn waits for a request's head for ever and takes one of any length, and answers what is no HTTP in plain text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.request_ids import HEADER, request_id
from service.schemas import RequestErrorDetail
from service.security_headers import API_HEADERS

# Browsers and proxies stay far below it.
_MOST_HEAD_BYTES = 65_536

_HEADERS = b"".join(
    b"%s: %s\r\n" % (name.lower().encode("ascii"), value.encode("ascii"))
    for name, value in {**API_HEADERS, "Content-Type": "application/json"}.items()
)


@dataclass(frozen=True)
class Refusal:
    """An answer that is given without running the application.

    Attributes:
        status: HTTP status.
        error: its type and message.
        retry_after_s: when to come back, in whole seconds.
    """

    status: int
    error: RequestErrorDetail
    retry_after_s: int | None = None

    def encoded(self, keep_alive: bool) -> bytes:
        """The whole response."""
        body = orjson.dumps({"error": self.error})
        head = [
            STATUS_LINE[self.status],
            _HEADERS,
            b"content-length: %d\r\n" % len(body),
            b"%s: %s\r\n" % (HEADER, self.error.request_id.encode("ascii")),
        ]
        if self.retry_after_s is not None:
            head.append(b"retry-after: %d\r\n" % self.retry_after_s)
        if not keep_alive:
            head.append(b"connection: close\r\n")
        return b"".join([*head, b"\r\n", body])


@dataclass(frozen=True)
class Guard:
    """What connections have to obey.

    Attributes:
        receive_s: longest time until a request has arrived, in seconds, counted from the connection or from the first
            byte of its head.
        max_connections: open at a time.
        refusal: why a request is refused by its head alone, if it is.
        note: told of every answer that was no request's: its status and error type.
    """

    receive_s: float
    max_connections: int
    refusal: Callable[[Scope], Refusal | None]
    note: Callable[[Refusal], None]


def guarded_protocol(guard: Guard) -> Callable[..., asyncio.Protocol]:
    """The protocol for uvicorn's setting `http`."""
    return partial(GuardedProtocol, guard)


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, guard: Guard, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._guard = guard
        self._in_head = True
        self._head_bytes = 0  # of the head that has not ended, but for the packet in which it began
        self._head_began = False  # in this packet
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self._expect_request()
        if len(self.connections) > self._guard.max_connections:
            self._end(503, "too_many_connections", "the server has too many connections", retry_after_s=1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        super().connection_lost(exc)
        self._request_arrived()

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless a head gets too long."""
        if self.transport.is_closing():
            return
        self._head_began = False
        super().data_received(data)
        if self._in_head and not self._head_began:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES and not self.transport.is_closing():
                self._end(431, "head_too_large", f"a request's head may have at most {_MOST_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = self._head_began = True
        self._head_bytes = 0
        self._expect_request()

    def on_headers_complete(self) -> None:
        """A head has ended."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request has arrived as a whole."""
        self._request_arrived()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._end(400, "malformed_request", msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Run the application, unless the head alone tells that the request is refused.

        An overloaded service refuses more requests than it answers, and what that costs is taken from the answers: the
        application would take several times as long to say the same.
        """
        refusal = self._guard.refusal(cycle.scope)  # type: ignore[arg-type]
        if refusal is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        self.transport.write(refusal.encoded(cycle.keep_alive))
        if not cycle.keep_alive:
            self.transport.close()
        if self.pipeline:  # not from here, or a thousand requests in one packet would be a thousand calls deep
            self.loop.call_soon(self.on_response_complete)
        else:
            self.on_response_complete()

    def _end(self, status: int, type_: str, message: str, retry_after_s: int | None = None) -> None:
        """Close the connection and say why, unless another answer is still being given on it."""
        detail = RequestErrorDetail(type=type_, message=message, request_id=request_id(self.headers or ()))
        refusal = Refusal(status, detail, retry_after_s)
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not self.pipeline:
            # Within the body of a request that is known by its head, to the application or as refused. For them its
            # client is gone; it is nobody else, and not noted.
            if not cycle.response_started:
                self.transport.write(refusal.encoded(keep_alive=False))
            cycle.disconnected = True
            cycle.message_event.set()
        else:
            self._guard.note(refusal)
            if cycle is None or cycle.response_complete:
                self.transport.write(refusal.encoded(keep_alive=False))
        self.transport.close()

    def _expect_request(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self._guard.receive_s, self._receive_no_longer)

    def _request_arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _receive_no_longer(self) -> None:
        self._late = None
        if self._in_head:
            self._end(408, "upload_timeout", "the request did not arrive in time")
        else:  # it has been answered, by the application or by its head alone
            self.transport.close()
