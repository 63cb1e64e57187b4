"""How connections share the event loop's time.

A client can make reading dear: thousands of chunks of a byte each, or of empty headers. It can also send thousands of
requests without waiting for answers. Many such clients together would hold up everybody for as long as it takes to read
once of each, or to answer each once. So each turn of the loop has an end, and what is left waits for the next in a fair
queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ClientGone
from service.http.addresses import network_of
from service.http.fair_queue import FairQueue

# How long may be read in a turn, in seconds, and how many requests are begun with.
_TURN_S, _REQUESTS_A_TURN = 0.005, 8

Connection = tuple[tuple[str, int] | None, tuple[str, int] | None]
"""The client and the server of a connection, each a host and a port, where they are known."""


class ReadingTurns:
    """Has what was read handed on, a little in every turn of the event loop.

    Its time is shared equally among addresses, and that of an address among its connections.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._spent_s = 0.0  # in this turn
        self._addresses: FairQueue[str] = FairQueue()
        self._connections: dict[str, FairQueue[Callable[[], None]]] = {}  # of each address that waits
        self._ends = False  # whether the end of this turn has been seen to

    def take(self, address: str, connection: object, step: Callable[[], None]) -> bool:
        """Take a step, now or in a later turn, and say whether it was now.

        Args:
            address: of the connection it is for.
            connection: that one; it takes no other step meanwhile.
            step: hands on what was read.
        """
        if not self._ends:
            self._ends = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self._addresses or self._spent_s > _TURN_S:
            self._connections.setdefault(address, FairQueue()).push(connection, step)
            self._addresses.push(address, address)
            return False
        self._take(step)
        return True

    def _take(self, step: Callable[[], None]) -> float:
        """Take a step, and return how long it took, in seconds."""
        began = self._clock()
        try:
            step()
        finally:
            took = self._clock() - began
            self._spent_s += took
        return took

    def _take_one_of(self, address: str) -> float:
        before = self._spent_s
        connections = self._connections[address]
        try:
            connections.serve(self._take)
        finally:
            if not connections:
                del self._connections[address]
        return self._spent_s - before

    def _end_turn(self) -> None:
        self._spent_s = 0.0
        while self._addresses and self._spent_s <= _TURN_S:
            self._addresses.serve(self._take_one_of)
        self._ends = bool(self._addresses) or self._spent_s > 0
        if self._ends:  # of the turn that has just begun
            asyncio.get_running_loop().call_soon(self._end_turn)


class RequestTurns:
    """Has a few requests begun with in each turn of the loop, of all addresses as many."""

    def __init__(self) -> None:
        self._begun = 0  # in this turn
        self._waiting: FairQueue[asyncio.Future[bool]] = FairQueue()
        self._by_connection: dict[object, asyncio.Future[bool]] = {}

    async def wait(self, connection: Connection) -> None:
        """Return when it is a request's turn.

        Args:
            connection: that it came by.

        Raises:
            ClientGone: its client has left before.
        """
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._end_turn)
        if self._begun < _REQUESTS_A_TURN and not self._waiting:
            self._begun += 1
            return
        turn: asyncio.Future[bool] = loop.create_future()
        client, _ = connection
        self._waiting.push(network_of(client[0]) if client else "", turn)
        if client:  # else nobody can tell that it has left
            self._by_connection[connection] = turn
        try:
            if not await turn:
                raise ClientGone
        finally:
            self._by_connection.pop(connection, None)

    def leave(self, connection: Connection) -> None:
        """Let the request of a client that has left wait no longer."""
        turn = self._by_connection.get(connection)
        if turn and not turn.done():
            turn.set_result(False)

    def _end_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < _REQUESTS_A_TURN:
            self._waiting.serve(self._begin)
        if self._begun:
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _begin(self, turn: asyncio.Future[bool]) -> float:
        if turn.done():  # as it is where the client has left, or the server has cancelled the request
            return 0.0
        turn.set_result(True)
        self._begun += 1
        return 1.0


class InTurn:
    """Middleware that has every request wait for its turn.

    Args:
        app: what answers.
        turns: in which requests are begun with.
    """

    def __init__(self, app: ASGIApp, turns: RequestTurns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            await self._turns.wait((_pair(scope.get("client")), _pair(scope.get("server"))))
        await self._app(scope, receive, send)


def _pair(end: Any) -> tuple[str, int] | None:
    return (end[0], end[1]) if end else None
