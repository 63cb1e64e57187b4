"""HTTP at the socket: uvicorn's protocol, closed to clients that send too much, too slowly, or to no purpose.

uvicorn waits for a request's head for ever and takes one of any length, reads on however many requests wait for their
turn, loses the body of one that would like another protocol, and answers what is no HTTP in plain text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http_answer import Refusal
from service.request_ids import request_id
from service.schemas import RequestErrorDetail

Headers = Sequence[tuple[bytes, bytes]]

# Browsers and proxies stay far below it.
_MOST_HEAD_BYTES = 65_536


@dataclass(frozen=True)
class Guard:
    """What connections have to obey.

    Attributes:
        receive_s: longest time until a request has arrived, in seconds, counted from the connection or from the first
            byte of its head, and until a client that does not read has read.
        max_connections: open at a time.
        refusal: why a request is refused by its method, path and headers alone, if it is.
        note: told of every answer that was no request's: its status and error type.
        begin: answers the requests that need no application, of which it is given connection, method, path and query
            when their head is there and none is being answered before them; None leaves one to the application.
    """

    receive_s: float
    max_connections: int
    refusal: Callable[[str, str, Headers], Refusal | None]
    note: Callable[[Refusal], None]
    begin: Callable[[GuardedProtocol, bytes, bytes, bytes], RequestResponseCycle | None] = lambda *_: None


class PatientFlow(FlowControl):
    """Reads nothing more of a connection on which requests wait for their turn.

    Args:
        transport: of the connection.
        waiting: the requests that do.
    """

    def __init__(self, transport: asyncio.Transport, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._waiting and not self._transport.is_closing():
            super().resume_reading()


def guarded_protocol(guard: Guard) -> Callable[..., asyncio.Protocol]:
    """The protocol for uvicorn's setting `http`."""
    return partial(GuardedProtocol, guard)


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, guard: Guard, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._guard = guard
        self._in_head = True
        self._in_request = False
        self._head_bytes = 0  # of the head that has not ended, but for the packet in which it began
        self._head_began = False  # in this packet
        self._long_packet = False
        self._answering: RequestResponseCycle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._server_headers = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self.flow = PatientFlow(transport, self.pipeline)
        self._expect_request()
        if len(self.connections) > self._guard.max_connections:
            self._end(503, "too_many_connections", "the server has too many connections", retry_after_s=1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection; to uvicorn only the request that came last is one whose client is gone."""
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._answering, *waiting):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)
        self._request_arrived()
        self._is_read()

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless a head gets too long."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._head_began = False
        self._long_packet = len(data) > _MOST_HEAD_BYTES
        try:
            self._parse(data)
        except httptools.HttpParserError:
            if not self.transport.is_closing():  # else it has been said what is wrong
                self._end(400, "malformed_request", "Invalid HTTP request received.")
            return
        if self._in_request:  # and not all of it came at once, as most do
            self._expect_request()
        if self._in_head and not self._head_began:
            self._head_bytes += len(data)
            self._refuse_long_head(self._head_bytes)

    def pause_writing(self) -> None:
        """The client does not read what it asked for; it may not do so for ever."""
        super().pause_writing()
        self._unread = self.loop.call_later(self._guard.receive_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._is_read()

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _parse(self, data: bytes) -> None:
        """Parse what came, asking for no other protocol than this: that is a wish, but its parser would end there.

        Raises:
            httptools.HttpParserError: it is no HTTP.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as wish:
                (end_of_head,) = wish.args
                data = self._head_without_wish() + data[end_of_head:]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            else:
                return

    @property
    def _comes_again(self) -> bool:
        """Whether this head is about to be parsed once more, without a wish for another protocol."""
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _refuse_long_head(self, head_bytes: int) -> bool:
        """Refuse a request for its head, if that is too long."""
        if head_bytes <= _MOST_HEAD_BYTES or self.transport.is_closing():
            return False
        self._end(431, "head_too_large", f"a request's head may have at most {_MOST_HEAD_BYTES} bytes")
        return True

    def _head_without_wish(self) -> bytes:
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join([first, *lines, b"\r\n"])

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = self._head_began = True
        self._in_request = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """A head has ended.

        Raises:
            ValueError: it is too long, and has been answered.
        """
        self._in_head = False
        if self._long_packet or not self._head_began:
            marks = 4 * len(self.headers)  # of which every line has a colon, a space and its end
            head_bytes = len(self.url) + sum(map(len, chain.from_iterable(self.headers))) + marks
            if self._refuse_long_head(head_bytes):
                raise ValueError(f"a head of {head_bytes} bytes")
        if self._comes_again:
            return
        if self.cycle is None or self.cycle.response_complete:
            path, _, query = self.url.partition(b"?")
            cycle = self._guard.begin(self, self.parser.get_method(), path, query)
            if cycle is not None:
                self.cycle = self._answering = cycle
                return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request has arrived as a whole."""
        if self._comes_again:
            return
        self._in_request = False
        self._request_arrived()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Run the application, unless the head alone tells that the request is refused.

        An overloaded service refuses more requests than it answers, and what that costs is taken from the answers: the
        application would take several times as long to say the same.
        """
        scope = cycle.scope
        self._answering = cycle
        refusal = self._guard.refusal(scope["method"], scope["path"], scope["headers"])  # type: ignore[arg-type]
        if refusal is None:
            super()._start_asgi_task(cycle, app)
        else:
            self.conclude(cycle, refusal.encoded(cycle.keep_alive, self.server_headers))

    @property
    def server_headers(self) -> bytes:
        """Lines that every answer has."""
        headers = self.server_state.default_headers
        if headers is not self._default_headers:  # made anew every second, for the date
            self._default_headers = headers
            self._server_headers = b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._server_headers

    def conclude(self, cycle: RequestResponseCycle, answer: bytes) -> None:
        """Give the whole answer to a request, and turn to the next."""
        cycle.response_started = cycle.response_complete = True
        if not self.transport.is_closing():
            self.transport.write(answer)
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
                self.transport.write(refusal.encoded(False, self.server_headers))
            cycle.disconnected = True
            cycle.message_event.set()
        else:
            self._guard.note(refusal)
            if cycle is None or cycle.response_complete:
                self.transport.write(refusal.encoded(False, self.server_headers))
        self.transport.close()

    def _expect_request(self) -> None:
        if self._late is None and not self.transport.is_closing():
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
