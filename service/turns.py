"""How connections share the event loop's time.

A client can make reading dear: thousands of chunks of a byte each, or of empty headers. It can also send thousands of
requests without waiting for answers. Many such clients together would hold up everybody for as long as it takes to read
once of each, or to answer each once. So each turn of the loop has an end.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable
from itertools import count

from service.errors import ClientGone

# How long may be read in a turn, in seconds, and how many requests are begun with.
_TURN_S, _REQUESTS_A_TURN = 0.005, 8
# After how many seconds what a connection has taken counts half as much.
_HALF_LIFE_S = 1.0
# Less of it is not worth remembering: seconds, or requests.
_NOTHING = 1e-4
# Addresses that are remembered whatever they have taken.
_FEW = 1024


class Taken:
    """How much somebody has taken lately, of time or of whatever there is."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._at = 0.0

    def at(self, now: float) -> float:
        """What counts of it now."""
        return self._amount * math.exp2((self._at - now) / _HALF_LIFE_S)

    def add(self, amount: float, now: float) -> None:
        """Count more."""
        self._amount, self._at = self.at(now) + amount, now


class Shares:
    """What each address has taken, as long as that counts."""

    def __init__(self) -> None:
        self._of: dict[str, Taken] = {}
        self._most = _FEW

    def of(self, address: str, now: float) -> Taken:
        """What one has taken. When there are many, those are forgotten that have taken next to nothing lately."""
        taken = self._of.get(address)
        if taken is None:
            if len(self._of) >= self._most:
                self._of = {known: one for known, one in self._of.items() if one.at(now) > _NOTHING}
                self._most = max(_FEW, 2 * len(self._of))  # lest it be looked for at every new address
            taken = self._of[address] = Taken()
        return taken


class ReadingTurns:
    """Has what was read handed on, a little in every turn of the event loop: first of those who have taken least.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._spent_s = 0.0  # in this turn
        self._by_address = Shares()
        self._put_off: list[tuple[float, float, int, int, str, Taken, Callable[[], None]]] = []
        self._numbers = count()
        self._ends = False  # whether the end of this turn has been seen to

    def take(self, address: str, taken: Taken, size: int, step: Callable[[], None]) -> bool:
        """Take a step, now or in a later turn, and say whether it was now.

        First are the addresses that have taken least, of one address the connections that have, and then who has sent
        least.

        Args:
            address: of the connection it is for.
            taken: by that connection.
            size: of what was read, in bytes.
            step: hands on what was read.
        """
        if not self._ends:
            self._ends = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self._put_off or self._spent_s > _TURN_S:
            now = self._clock()
            order = (self._by_address.of(address, now).at(now), taken.at(now), size, next(self._numbers))
            heapq.heappush(self._put_off, (*order, address, taken, step))
            return False
        self._take(address, taken, step)
        return True

    def _take(self, address: str, taken: Taken, step: Callable[[], None]) -> None:
        began = self._clock()
        try:
            step()
        finally:
            ended = self._clock()
            taken.add(ended - began, ended)
            self._by_address.of(address, ended).add(ended - began, ended)
            self._spent_s += ended - began

    def _end_turn(self) -> None:
        self._spent_s = 0.0
        while self._put_off and self._spent_s <= _TURN_S:
            *_, address, taken, step = heapq.heappop(self._put_off)
            self._take(address, taken, step)
        self._ends = bool(self._put_off) or self._spent_s > 0
        if self._ends:  # of the turn that has just begun
            asyncio.get_running_loop().call_soon(self._end_turn)


class RequestTurns:
    """Has a few requests begun with in each turn of the loop: first those of addresses that have asked least.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun = 0  # in this turn
        self._asked = Shares()
        self._waiting: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._by_client: dict[object, asyncio.Future[bool]] = {}
        self._numbers = count()

    async def wait(self, client: tuple[str, int] | None) -> None:
        """Return when it is a request's turn.

        Args:
            client: that sent it, as an ASGI scope has it.

        Raises:
            ClientGone: it has left before.
        """
        loop, now = asyncio.get_running_loop(), self._clock()
        if not self._begun:
            loop.call_soon(self._end_turn)
        asked = self._asked.of(client[0] if client else "", now)
        asked.add(1, now)
        if self._begun < _REQUESTS_A_TURN and not self._waiting:
            self._begun += 1
            return
        turn: asyncio.Future[bool] = loop.create_future()
        heapq.heappush(self._waiting, (asked.at(now), next(self._numbers), turn))
        if client is not None:  # else nobody can tell that it has left
            self._by_client[client] = turn
        try:
            if not await turn:
                raise ClientGone
        finally:
            self._by_client.pop(client, None)

    def leave(self, client: object) -> None:
        """Let the request of a client that has left wait no longer."""
        turn = self._by_client.get(client)
        if turn and not turn.done():
            turn.set_result(False)

    def _end_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < _REQUESTS_A_TURN:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():  # as it is where the client has left, or the server has cancelled the request
                turn.set_result(True)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._end_turn)
