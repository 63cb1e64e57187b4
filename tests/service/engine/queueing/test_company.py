"""Batches that wait for company."""

from __future__ import annotations

import asyncio

import pytest

from tests.service.engine.queueing.desk import Clock, Desk

_REAL_MS = 30.0  # that a test can wait for


async def _until_given(desk: Desk) -> None:
    async with asyncio.timeout(30):
        while not any(desk.given):
            await asyncio.sleep(0.001)


async def _passes_by() -> None:
    """Wait longer than a timer of the scheduler does."""
    await asyncio.sleep(2 * _REAL_MS / 1000)


def test_batch_is_given_when_its_oldest_job_has_waited_for_company(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=4, max_wait_ms=_REAL_MS, idle=True)
        desk.put("a")
        await asyncio.sleep(0)
        desk.put("b")
        assert desk.given == [[]]
        clock.now += _REAL_MS / 1000
        await _until_given(desk)
        assert desk.given == [["ab"]]

    asyncio.run(scenario())


def test_timer_that_comes_too_early_waits_on(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=2, max_wait_ms=_REAL_MS, idle=True)
        desk.put("a")
        await _passes_by()  # on this clock no time has passed
        assert desk.given == [[]]
        clock.now += _REAL_MS / 1000
        await _until_given(desk)
        assert desk.given == [["a"]]

    asyncio.run(scenario())


def test_full_batch_waits_for_nobody(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, workers=2, max_batch=2, max_wait_ms=60_000, idle=True)
        desk.put("abc")
        assert desk.given == [[], ["ab"]]
        assert len(desk.scheduler) == 1

    asyncio.run(scenario())


def test_as_many_as_there_is_room_for_wait_for_nobody(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, capacity=2, max_batch=8, max_wait_ms=60_000, idle=True)
        desk.put("a")
        assert desk.given == [[]]
        desk.put("b")
        assert desk.given == [["ab"]]

    asyncio.run(scenario())


@pytest.mark.parametrize(("passed_s", "given"), [(7.9, []), (8.0, ["a"])])
def test_nobody_waits_until_it_is_too_late(clock: Clock, passed_s: float, given: list[str]) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=8, max_wait_ms=60_000)
        desk.put("x")
        clock.now += 60.0
        desk.scheduler.take_in(desk.slots[0])
        desk.go_on(desk.slots[0], seconds=2.0)  # so that it is known how long it takes
        desk.put("a", within=10)
        clock.now += passed_s
        desk.scheduler.dispatch()
        assert desk.given == [["x", *given]]

    asyncio.run(scenario())


def test_without_the_policy_nobody_waits(clock: Clock) -> None:
    desk = Desk(clock, max_batch=2, max_wait_ms=0, idle=True)
    desk.put("a")
    assert desk.given == [["a"]]


def test_one_worker_takes_all_that_was_waited_for(clock: Clock) -> None:
    desk = Desk(clock, workers=2, max_batch=4, max_wait_ms=60_000)
    desk.put("abcd")
    assert desk.rest() == ["abcd"]


def test_closing_ends_the_wait_for_company(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=4, max_wait_ms=60_000, idle=True)
        desk.put("a")
        assert desk.given == [[]]
        desk.lane.close()
        assert desk.given == [["a"]]

    asyncio.run(scenario())


def test_wait_for_company_is_no_longer_for_dear_jobs_that_wait_too(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=8, max_wait_ms=_REAL_MS)
        desk.put("x")
        clock.now += 1.0
        desk.scheduler.take_in(desk.slots[0])
        desk.put("AB")
        desk.go_on(desk.slots[0])
        clock.now += 600.0
        desk.put("y")  # others come
        desk.go_on(desk.slots[0])
        assert desk.given == [["x", "A"]]
        clock.now += _REAL_MS / 1000
        async with asyncio.timeout(30):
            while len(desk.given[0]) < 3:
                await asyncio.sleep(0.001)
        assert desk.given == [["x", "A", "y"]]

    asyncio.run(scenario())
