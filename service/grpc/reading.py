"""Messages are read a few at a time: gRPC holds each as a whole before anybody can look at it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from service.http.addresses import network_of

Context = grpc.aio.ServicerContext[Any, Any]
# To wait for its turn and to come as a whole, a message has so long, in seconds.
LONGEST_S = 10.0


class Reading:
    """Lets so many messages come at a time, and of one address half as many.

    Args:
        most: messages.
    """

    def __init__(self, most: int) -> None:
        self._most, self._most_of_one = most, max(1, most // 2)
        self._of_address: Counter[str] = Counter()
        self._done = asyncio.Condition()

    async def message(self, context: Context, address: str) -> bytes | None:
        """The next message of a call; None at its end.

        Raises:
            TimeoutError: it did not come, or had no turn, in time.
        """
        async with asyncio.timeout(LONGEST_S), self._turn(network_of(address)):
            message: Any = await context.read()
            return None if message is grpc.aio.EOF else message

    @asynccontextmanager
    async def _turn(self, address: str) -> AsyncIterator[None]:
        async with self._done:
            await self._done.wait_for(lambda: self._has_room(address))
            self._of_address[address] += 1
        try:
            yield
        finally:
            self._of_address[address] -= 1
            self._of_address += Counter()  # forgets those that have none
            async with self._done:
                self._done.notify_all()

    def _has_room(self, address: str) -> bool:
        return self._of_address.total() < self._most and self._of_address[address] < self._most_of_one
