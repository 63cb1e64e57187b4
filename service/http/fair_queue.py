"""Who is next of those who wait, so that nobody can be kept waiting by what others ask for."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")

# Of those that wait no longer, so many are remembered before anybody is forgotten.
_FEW = 1024
# By what part of the cost of what is served the start of those who begin to wait moves on. If it was all, they would
# be behind everybody who has been served once; if it was nothing, ever new ones could keep all others waiting.
_PART = 1 / 8


class FairQueue(Generic[T]):
    """Fair queueing by virtual time, between start-time (Goyal, Vin & Cheng 1996) and self-clocked (Golestani 1994).

    Everybody's items wait in a line of their own, and next is the first item of the line that has been served least, by
    what each item turned out to cost. Whoever begins to wait starts about level with the one served last: idleness
    earns nothing, and where all items cost the same, at most one item of each of those who wait is served before.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[T]] = {}
        # For each line what it has been served; where it began to wait, at least the level.
        self._order: list[tuple[float, int, Hashable]] = []
        self._served: dict[Hashable, float] = {}
        self._level = 0.0
        self._numbers = count()
        self._most_served = _FEW

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._lines)

    def push(self, who: Hashable, item: T) -> None:
        """Have an item wait in somebody's line."""
        line = self._lines.get(who)
        if line is None:
            self._lines[who] = deque((item,))
            self._enter(who, max(self._level, self._served.get(who, 0.0)))
        else:
            line.append(item)

    def serve(self, serve: Callable[[T], float]) -> None:
        """Serve the next item; somebody must be waiting.

        Args:
            serve: serves it, and returns what that cost, in any unit.
        """
        level, _, who = heapq.heappop(self._order)
        line = self._lines[who]
        cost = 0.0
        try:
            cost = serve(line.popleft())
        finally:
            self._level = level + cost * _PART
            if line:
                self._enter(who, level + cost)
            else:
                del self._lines[who]
                self._remember(who, level + cost)

    def _enter(self, who: Hashable, served: float) -> None:
        heapq.heappush(self._order, (served, next(self._numbers), who))

    def _remember(self, who: Hashable, served: float) -> None:
        if not self._lines:
            self._served.clear()  # the next to wait are all level
            return
        self._served[who] = served
        if len(self._served) > self._most_served:
            self._served = {known: amount for known, amount in self._served.items() if amount > self._level}
            self._most_served = max(_FEW, 2 * len(self._served))
