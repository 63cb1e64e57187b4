from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from service.errors import ApiError
from service.frontends.member import Member
from service.frontends.talk import Talk
from service.repository.whole import Part


class _Part:
    registry = CollectorRegistry()


def test_metrics_are_asked_once_for_all_who_want_them_meanwhile() -> None:
    async def run() -> None:
        asked: list[str] = []

        async def above(what: str, _: Any) -> str:
            asked.append(what)
            await asyncio.sleep(0)
            return f"text {len(asked)}"

        here, there = socket.socketpair()
        talk, member = Talk(above), Member(0, 2, there, None)
        await talk.open(here)
        async with member.running(cast(Part, _Part())):
            told = await asyncio.gather(*(member.metrics() for _ in range(1000)))
            assert asked == ["metrics"]
            assert told == [b"text 1"] * 1000
            assert await member.metrics() == b"text 2"
        await talk.ended()

    asyncio.run(run())


def test_metrics_of_a_process_that_has_ended_are_an_error() -> None:
    async def run() -> None:
        here, there = socket.socketpair()
        member = Member(0, 2, there, None)
        async with member.running(cast(Part, _Part())):
            here.close()
            with pytest.raises(ApiError, match="the process above the front ends has ended"):
                await member.metrics()

    asyncio.run(run())
