"""Connections: how many there may be, how long they may idle, and how much of the event loop one may take.

uvicorn has no settings for these. Each connection is let in by a `Guest`, which hands everything on to uvicorn's own
protocol, `H11Protocol`. Of that it uses what every asyncio protocol has, and two public attributes: `cycle`, the last
request, with its `response_complete`, and `flow`, whose `read_paused` tells that nothing should be read.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import error_json
from service.http.addresses import network_of
from service.http.request_ids import request_id
from service.http.turns import Connection, ReadingTurns

# What is read of a connection in one step, in bytes. In chunks of a byte each that takes some 10 ms.
_READ_BYTES = 8192
# A client that has not read so much of an answer has not read on. The last bytes of it are taken by the system.
_LEAST_BYTES = 4096
# How many of those that are turned away are given time to read why, and how long, in seconds.
_MOST_TURNED_AWAY, _TURNING_AWAY_S = 64, 1.0
REFUSAL = "too_many_connections"


class FrontDoor:
    """Lets connections in. It belongs to the event loop.

    Args:
        most: connections open at a time.
        most_of_one_address: of them. An IPv6 address is counted with its /64 network, which mostly is one client's.
        idle_s: how long a connection may neither bring a request nor wait for an answer, and how long a client may
            read next to nothing of an answer, in seconds.
        on_refusal: told whenever a connection is turned away.
        on_departure: told whenever a connection is closed.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        most: int,
        most_of_one_address: int,
        idle_s: float,
        on_refusal: Callable[[], None] = lambda: None,
        on_departure: Callable[[Connection], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.buffer = bytearray(_READ_BYTES)  # for all: what is read is handed on before anybody else reads
        self.turned_away = 0
        self.on_departure = on_departure
        self.turns = ReadingTurns()
        self._most = most
        self._most_of_one_address = most_of_one_address
        self._idle_s = idle_s
        self._on_refusal = on_refusal
        self._clock = clock
        self._guests: set[Guest] = set()
        self._by_address: Counter[str] = Counter()

    def protocol(self, **arguments: Any) -> asyncio.BaseProtocol:
        """The protocol of a new connection: uvicorn's setting `http`, which is called with what uvicorn's own takes."""
        return Guest(self, H11Protocol(**arguments))

    def let_in(self, guest: Guest) -> bool:
        """Count a connection, unless there are too many."""
        if len(self._guests) >= self._most or self._by_address[guest.address] >= self._most_of_one_address:
            self._on_refusal()
            return False
        self._guests.add(guest)
        self._by_address[guest.address] += 1
        return True

    def see_off(self, guest: Guest) -> None:
        """Forget a connection that is closed."""
        if guest in self._guests:
            self._guests.remove(guest)
            self._by_address[guest.address] -= 1
            if not self._by_address[guest.address]:
                del self._by_address[guest.address]

    def sweep(self) -> None:
        """Close what has idled for too long; called about once a second."""
        now = self._clock()
        for guest in [*self._guests]:
            if guest.idles_since(now) < now - self._idle_s:
                guest.abort()

    @property
    def is_open_to_anybody(self) -> bool:
        """Whether there are connections."""
        return bool(self._guests)


class Guest(asyncio.BufferedProtocol):
    """One connection.

    Args:
        door: that it comes by.
        http: what speaks HTTP on it.
    """

    def __init__(self, door: FrontDoor, http: H11Protocol) -> None:
        self.address = ""
        self._connection: Connection = (None, None)
        self._door = door
        self._http: H11Protocol | None = http
        self._last_request: object = None
        self._idle_since: float | None = None
        self._unread_since: float | None = None
        self._unread_bytes = 0
        self._read = bytearray()  # and not handed on

    def idles_since(self, now: float) -> float:
        """When it began to do nothing; now, if it does something."""
        if self._unread_since is not None:
            return self._reads_nothing_since(now)
        if self._read:  # it waits for its turn
            return now
        request = self._http.cycle if self._http else None
        if request is not self._last_request or (request is not None and not request.response_complete):
            self._last_request, self._idle_since = request, None
            return now
        if self._idle_since is None:
            self._idle_since = now
        return self._idle_since

    def _reads_nothing_since(self, now: float) -> float:
        unread_bytes = self._transport.get_write_buffer_size()
        if unread_bytes <= self._unread_bytes - _LEAST_BYTES:
            self._unread_bytes, self._unread_since = unread_bytes, now
        return self._unread_since or now

    def abort(self) -> None:
        """Close the connection at once, whatever has not been read or sent."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let a connection in, or turn it away."""
        self._transport = cast(asyncio.Transport, transport)
        peer, own = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        if isinstance(own, str):  # of a Unix socket, whose clients have no address; ASGI knows neither
            self._connection, self.address = (None, None), own
        elif peer is None:  # it is closed already, and what it brought would be answered to nobody
            self._http = None
            self.abort()
            return
        else:
            self._connection, self.address = (peer[:2], own[:2]), network_of(peer[0])
        if self._http is not None and self._door.let_in(self):
            self._http.connection_made(self._transport)
        else:
            self._http = None
            self._turn_away()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 (asyncio's interface)
        """Where to put what is read next."""
        return self._door.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read, in turn."""
        if self._http is None:
            return
        self._read += self._door.buffer[:nbytes]
        if len(self._read) > nbytes or not self._door.turns.take(self.address, self, self._hand_on):
            self._transport.pause_reading()  # until that is handed on

    def _hand_on(self) -> None:
        data, self._read = bytes(self._read), bytearray()
        if self._http is None or self._transport.is_closing():
            return
        try:
            self._http.data_received(data)
        except LocalProtocolError:  # uvicorn would say what was wrong with this, within an answer that has begun
            self._transport.close()
        if not self._transport.is_closing() and not self._http.flow.read_paused:
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The client sends no more, which ends the connection."""

    def pause_writing(self) -> None:
        """Hand on that the client does not read."""
        self._unread_since = time.monotonic()
        self._unread_bytes = self._transport.get_write_buffer_size()
        if self._http:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that it does."""
        self._unread_since = None
        if self._http:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on that the connection is closed."""
        self._door.see_off(self)
        self._door.on_departure(self._connection)
        if self._http:
            self._http.connection_lost(exc)
            self._http = None

    def _turn_away(self) -> None:
        """Say why, and leave some time to read it."""
        if self._door.turned_away == _MOST_TURNED_AWAY:
            self.abort()
            return
        self._door.turned_away += 1
        id_ = request_id(())
        body = error_json(REFUSAL, "there are as many connections as are taken, in all or from this address", id_)
        head = (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"retry-after: 1\r\nx-request-id: {id_}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode("ascii") + body)
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(_TURNING_AWAY_S, self._close_turned_away)

    def _close_turned_away(self) -> None:
        self._door.turned_away -= 1
        self.abort()
