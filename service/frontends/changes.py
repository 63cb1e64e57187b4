"""Models are loaded and unloaded in all front ends, one change at a time."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from typing import Any

from service.frontends.front_end import FrontEnd
from service.frontends.talk import NoAnswer

_log = logging.getLogger("service")

# Longest time for one front end: it opens, proves and measures a model, and replaces its workers.
_LONGEST_S = 290.0

Refusal = list[Any]
"""Status, type, message and headers of an error."""


class Changes:
    """The first front end makes a change before any other: what it cannot do changes nothing anywhere.

    Where another cannot do what the first has done, it is replaced by one that begins with what the first serves.

    Args:
        front_ends: that there are, by number.
        count: as many as there should be.

    Attributes:
        lock: held while a change is made; no front end may be started meanwhile.
    """

    def __init__(self, front_ends: Callable[[], Mapping[int, FrontEnd]], count: int) -> None:
        self._front_ends = front_ends
        self._count = count
        self.lock = asyncio.Lock()

    async def make(self, change: str, name: str, version: str | None) -> Refusal | None:
        """Have all front ends make a change; return why they did not, None where they did."""
        async with self.lock:
            first, *others = [each for _, each in sorted(self._front_ends().items())]
            away = [each.number for each in (first, *others) if not each.serving]
            if away or len(others) + 1 < self._count:
                return _missing(f"front end {away[0]} is being started" if away else "front ends are being started")
            try:
                if refusal := await _asked(first, change, name, version):
                    return refusal
            except NoAnswer as error:
                return _replaced(first, error)
            told = await asyncio.gather(
                *(_asked(each, change, name, version) for each in others), return_exceptions=True
            )
            failed = [_replaced(each, why) for each, why in zip(others, told, strict=True) if why]
            return failed[0] if failed else None


async def _asked(front_end: FrontEnd, change: str, name: str, version: str | None) -> Refusal | None:
    told = await front_end.talk.ask("change", [change, name, version], _LONGEST_S)
    front_end.models = told["models"]
    refusal: Refusal | None = told["refusal"]
    return refusal


def _replaced(front_end: FrontEnd, why: BaseException | Refusal) -> Refusal:
    """Have a front end end that serves other models than the others, or nobody knows which."""
    reason = str(why) if isinstance(why, BaseException) else why[2]
    said = f"front end {front_end.number} is replaced, because what all were to do it could not: {reason}"
    _log.error("%s", said)
    front_end.serving = False
    front_end.signal(signal.SIGTERM)
    return _missing(said)


def _missing(message: str) -> Refusal:
    return [503, "front_end_missing", message, {"Retry-After": "2"}]
