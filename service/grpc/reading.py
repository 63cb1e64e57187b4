"""Messages are read a few at a time: gRPC holds each as a whole before anybody can look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from service.http.addresses import network_of
from service.http.fair_queue import FairQueue

Context = grpc.aio.ServicerContext[Any, Any]
# To wait for its turn and to come as a whole, a message has at most so long, in seconds.
LONGEST_S = 10.0


class Reading:
    """Lets so many messages come at a time, and of one address half as many.

    Where more wait, the next turn is that of the address that has had the fewest.

    Args:
        most: messages.
        to_come_s: how long a message has to come once it has its turn, in seconds.
    """

    def __init__(self, most: int, to_come_s: float = LONGEST_S) -> None:
        self._free, self._most_of_one = most, max(1, most // 2)
        self._to_come_s = to_come_s
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        # Of each address: its own turns, and how many calls use or want one.
        self._lines: dict[str, tuple[asyncio.Semaphore, int]] = {}

    async def message(self, context: Context, address: str) -> bytes | None:
        """The next message of a call; None at its end.

        Raises:
            TimeoutError: it did not come, or had no turn, in time.
        """
        async with asyncio.timeout(LONGEST_S), self._turn(network_of(address)), asyncio.timeout(self._to_come_s):
            message: Any = await context.read()
            return None if message is grpc.aio.EOF else message

    @asynccontextmanager
    async def _turn(self, address: str) -> AsyncIterator[None]:
        async with self._line(address):
            await self._take(address)
            try:
                yield
            finally:
                self._give_back()

    @asynccontextmanager
    async def _line(self, address: str) -> AsyncIterator[None]:
        line, calls = self._lines.get(address) or (asyncio.Semaphore(self._most_of_one), 0)
        self._lines[address] = line, calls + 1
        try:
            async with line:
                yield
        finally:
            _, calls = self._lines.pop(address)
            if calls > 1:
                self._lines[address] = line, calls - 1

    async def _take(self, address: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.push(address, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had come just then
                self._give_back()
            raise

    def _give_back(self) -> None:
        """Let the next one have it who still waits."""
        self._free += 1
        while self._waiting and self._free:
            self._waiting.serve(self._give)

    def _give(self, turn: asyncio.Future[None]) -> float:
        """Give a turn to who still waits for it; return what that costs."""
        if turn.done():
            return 0.0
        self._free -= 1
        turn.set_result(None)
        return 1.0
