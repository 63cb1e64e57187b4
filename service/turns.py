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
from collections import deque
from collections.abc import Callable
from itertools import count

from starlette.types import ASGIApp, Receive, Scope, Send

# How long may be read in a turn, in seconds, and how many requests are begun with.
_TURN_S, _REQUESTS_A_TURN = 0.005, 8
# After how many seconds what a connection has taken counts half as much.
_HALF_LIFE_S = 1.0


class Taken:
    """How much time a connection has taken lately."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = 0.0

    def at(self, now: float) -> float:
        """What counts of it now, in seconds."""
        return self._seconds * math.exp2((self._at - now) / _HALF_LIFE_S)

    def add(self, seconds: float, now: float) -> None:
        """Count more."""
        self._seconds, self._at = self.at(now) + seconds, now


class ReadingTurns:
    """Has what was read handed on, a little in every turn of the event loop: first of those who have taken least.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._spent_s = 0.0  # in this turn
        self._put_off: list[tuple[float, int, int, Taken, Callable[[], None]]] = []
        self._numbers = count()
        self._ends = False  # whether the end of this turn has been seen to

    def take(self, taken: Taken, size: int, step: Callable[[], None]) -> bool:
        """Take a step, now or in a later turn, and say whether it was now.

        Args:
            taken: by the connection it is for.
            size: of what was read, in bytes; of those who have taken as much, who has sent less is first.
            step: hands on what was read.
        """
        if not self._ends:
            self._ends = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self._put_off or self._spent_s > _TURN_S:
            heapq.heappush(self._put_off, (taken.at(self._clock()), size, next(self._numbers), taken, step))
            return False
        self._take(taken, step)
        return True

    def _take(self, taken: Taken, step: Callable[[], None]) -> None:
        began = self._clock()
        try:
            step()
        finally:
            ended = self._clock()
            taken.add(ended - began, ended)
            self._spent_s += ended - began

    def _end_turn(self) -> None:
        self._spent_s = 0.0
        while self._put_off and self._spent_s <= _TURN_S:
            *_, taken, step = heapq.heappop(self._put_off)
            self._take(taken, step)
        self._ends = bool(self._put_off) or self._spent_s > 0
        if self._ends:  # of the turn that has just begun
            asyncio.get_running_loop().call_soon(self._end_turn)


class RequestTurns:
    """An ASGI application that begins with a few requests in each turn of the loop, in the order in which they came.

    Args:
        app: answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._begun = 0  # in this turn
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on in its turn."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._end_turn)
        if self._begun < _REQUESTS_A_TURN and not self._waiting:
            self._begun += 1
        else:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        await self._app(scope, receive, send)

    def _end_turn(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < _REQUESTS_A_TURN:
            turn = self._waiting.popleft()
            if not turn.done():  # as it is where the server has cancelled its request
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            asyncio.get_running_loop().call_soon(self._end_turn)
