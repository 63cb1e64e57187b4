from __future__ import annotations

import asyncio
from itertools import count

import pytest

from service.frontends.shared import Shared


def test_many_who_ask_share_what_is_begun_after_they_asked() -> None:
    async def run() -> None:
        numbers, released = count(), asyncio.Event()

        async def find_out() -> int:
            number = next(numbers)
            await released.wait()
            return number

        shared = Shared(find_out)
        first = [asyncio.ensure_future(shared()) for _ in range(3)]
        await asyncio.sleep(0)  # they ask
        await asyncio.sleep(0)  # and it is begun, so that those who ask now need to know what is so later
        later = [asyncio.ensure_future(shared()) for _ in range(100)]
        await asyncio.sleep(0)
        released.set()
        assert await asyncio.gather(*first) == [0] * 3
        assert await asyncio.gather(*later) == [1] * 100
        assert await shared() == 2

    asyncio.run(run())


def test_failure_is_told_to_all_who_asked_and_to_nobody_else() -> None:
    async def run() -> None:
        fails = [True]

        async def find_out() -> str:
            await asyncio.sleep(0)
            if fails.pop():
                raise ValueError("no")
            return "fine"

        shared = Shared(find_out)
        told = await asyncio.gather(shared(), shared(), return_exceptions=True)
        assert [str(each) for each in told] == ["no", "no"]
        fails.append(False)
        assert await shared() == "fine"

    asyncio.run(run())


def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    async def run() -> None:
        released = asyncio.Event()

        async def find_out() -> str:
            await released.wait()
            return "fine"

        shared = Shared(find_out)
        leaves, stays = asyncio.ensure_future(shared()), asyncio.ensure_future(shared())
        await asyncio.sleep(0)
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        released.set()
        assert await stays == "fine"

    asyncio.run(run())
