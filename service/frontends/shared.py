"""What many want to know at a time is found out once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Whoever calls it gets what was found out after he asked, together with all who ask before that is begun.

    So there is one question at a time, however many ask, and nobody is told what was so before.

    Args:
        find_out: does it, and may raise what all of them get.
    """

    def __init__(self, find_out: Callable[[], Awaitable[T]]) -> None:
        self._find_out = find_out
        self._at_work = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """What is found out next."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._begin())
        return await asyncio.shield(self._next)

    async def _begin(self) -> T:
        async with self._at_work:
            self._next = None
            return await self._find_out()
