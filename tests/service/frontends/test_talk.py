from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.frontends.talk import NoAnswer, Talk

Answer = Callable[[str, Any], Awaitable[Any]]


async def _echoed(what: str, about: Any) -> Any:
    return [what, about]


@asynccontextmanager
async def _two(first: Answer = _echoed, second: Answer = _echoed) -> AsyncIterator[tuple[Talk, Talk]]:
    here, there = socket.socketpair()
    talks = Talk(first), Talk(second)
    await talks[0].open(here)
    await talks[1].open(there)
    try:
        yield talks
    finally:
        for talk in talks:
            talk.close()
        for talk in talks:
            await talk.ended()


def test_both_sides_ask_and_get_their_own_answers() -> None:
    async def run() -> None:
        async with _two() as (one, two):
            asked = [one.ask("a", 1), two.ask("b", float("inf")), one.ask("c", {"d": None})]
            assert await asyncio.gather(*asked) == [["a", 1], ["b", float("inf")], ["c", {"d": None}]]

    asyncio.run(run())


def test_answer_that_does_not_come_is_not_waited_for() -> None:
    async def run() -> None:
        released = asyncio.Event()

        async def waiting(what: str, about: Any) -> Any:
            if what == "wait":
                await released.wait()
            return about

        async with _two(second=waiting) as (one, _):
            with pytest.raises(NoAnswer, match="does not answer"):
                await one.ask("wait", within_s=0.01)
            released.set()  # what comes too late is nobody's answer
            assert await one.ask("at once", 2) == 2

    asyncio.run(run())


def test_question_to_one_that_ends_is_told_so() -> None:
    async def run() -> None:
        asked = asyncio.Event()

        async def silent(_: str, __: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

        async with _two(second=silent) as (one, two):
            answer = asyncio.ensure_future(one.ask("anything", within_s=60))
            await asked.wait()
            two.close()
            with pytest.raises(NoAnswer, match="has ended"):
                await answer
            with pytest.raises(NoAnswer, match="has ended"):
                await one.ask("more")

    asyncio.run(run())


def test_one_that_fails_says_so_and_answers_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(what: str, _: Any) -> Any:
        if what == "fail":
            raise RuntimeError("secret")
        return "fine"

    async def run() -> None:
        async with _two(second=failing) as (one, _):
            with pytest.raises(NoAnswer, match="has failed; its log says why"):
                await one.ask("fail")
            assert await one.ask("other") == "fine"

    asyncio.run(run())
    assert "fail could not be answered" in caplog.text


def test_one_that_is_killed_in_the_middle_is_no_error_to_log(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        here, there = socket.socketpair()
        talk = Talk(_echoed)
        await talk.open(here)
        there.close()
        talk.tell("anything")  # which the system refuses to take
        await talk.ended()

    asyncio.run(run())
    assert not caplog.records
