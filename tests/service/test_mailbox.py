from __future__ import annotations

import asyncio
from functools import partial
from threading import Thread
from typing import Any

from service.mailbox import Mailbox


def test_all_that_is_there_costs_the_loop_one_call() -> None:
    calls = 0
    taken: list[int] = []

    async def scenario() -> None:
        loop: Any = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def counted(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            return call(*arguments)

        loop.call_soon_threadsafe = counted
        mailbox = Mailbox()
        for number in range(5):
            mailbox.post(partial(taken.append, number), loop)
        await asyncio.sleep(0.01)
        mailbox.post(lambda: taken.append(5), loop)
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert (taken, calls) == ([0, 1, 2, 3, 4, 5], 2)


def test_nothing_that_threads_post_is_lost() -> None:
    taken: list[int] = []

    async def scenario() -> None:
        loop, mailbox = asyncio.get_running_loop(), Mailbox()

        def post() -> None:
            for number in range(2000):
                mailbox.post(partial(taken.append, number), loop)

        threads = [Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(taken) < 8000:
            await asyncio.sleep(0)
        for thread in threads:
            thread.join()

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert len(taken) == 8000


def test_letter_that_raises_keeps_no_other_from_being_delivered() -> None:
    taken: list[int] = []

    async def scenario() -> None:
        loop, mailbox = asyncio.get_running_loop(), Mailbox()
        loop.set_exception_handler(lambda *_: None)
        mailbox.post(lambda: taken.append(1 // 0), loop)
        mailbox.post(lambda: taken.append(2), loop)
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert taken == [2]
