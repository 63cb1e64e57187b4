from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from service.engine.ipc.watchdog import Watchdog

_LONGEST_S = 0.1


class Kennel:
    """A watchdog.

    Attributes:
        barks: when it barked, in seconds since the beginning.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.barks: list[float] = []
        self.dog = Watchdog(_LONGEST_S, lambda: self.barks.append(self._loop.time() - self._began))


def _run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_what_takes_too_long_is_noticed_once() -> None:
    async def scenario() -> None:
        kennel = Kennel()
        kennel.dog.watch()
        await asyncio.sleep(3.5 * _LONGEST_S)
        (bark,) = kennel.barks
        assert bark >= _LONGEST_S

    _run(scenario())


def test_time_begins_anew_with_the_next() -> None:
    async def scenario() -> None:
        kennel = Kennel()
        kennel.dog.watch()
        await asyncio.sleep(0.2 * _LONGEST_S)
        kennel.dog.watch()
        await asyncio.sleep(3.5 * _LONGEST_S)
        (bark,) = kennel.barks
        assert bark >= 1.2 * _LONGEST_S

    _run(scenario())


def test_nobody_is_stuck_who_has_nothing_to_do() -> None:
    async def scenario() -> None:
        kennel = Kennel()
        kennel.dog.watch()
        kennel.dog.rest()
        await asyncio.sleep(2 * _LONGEST_S)
        assert kennel.barks == []
        kennel.dog.watch()
        await asyncio.sleep(2 * _LONGEST_S)
        assert len(kennel.barks) == 1

    _run(scenario())


def test_many_short_things_cost_one_timer() -> None:
    async def scenario() -> None:
        kennel = Kennel()
        kennel.dog.watch()
        timer = kennel.dog._timer
        for _ in range(100):
            kennel.dog.rest()
            kennel.dog.watch()
        assert kennel.dog._timer is timer
        kennel.dog.end()
        await asyncio.sleep(2 * _LONGEST_S)
        assert kennel.barks == []

    _run(scenario())
