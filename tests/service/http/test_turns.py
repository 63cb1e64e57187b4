from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from service.errors import ClientGone
from service.http.turns import ReadingTurns, RequestTurns
from tests.service.clock import Clock


class Reader:
    """Connections whose reading takes a set time each, on a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = ReadingTurns(self.clock)
        self.read: list[str] = []

    def step(self, name: str, seconds: float) -> Callable[[], None]:
        def read() -> None:
            self.clock.now += seconds
            self.read.append(name)

        return read

    def take(self, name: str, seconds: float, address: str = "a") -> bool:
        return self.turns.take(address, name.rstrip("0123456789"), self.step(name, seconds))


def _run(scenario: Callable[[], Any]) -> None:
    async def run() -> None:
        await scenario()

    asyncio.run(run())


def test_what_takes_little_is_read_at_once() -> None:
    reader = Reader()

    async def scenario() -> None:
        assert all(reader.take(str(number), 0.0001) for number in range(20))
        assert len(reader.read) == 20

    _run(scenario)


def test_turn_has_an_end_and_what_is_put_off_is_read_in_later_ones() -> None:
    reader = Reader()

    async def scenario() -> None:
        assert [reader.take(str(number), 0.004) for number in range(6)] == [True, True, False, False, False, False]
        assert reader.read == ["0", "1"]
        turns = 0
        while len(reader.read) < 6:
            before = len(reader.read)
            await asyncio.sleep(0)
            turns += 1
            assert len(reader.read) - before <= 2
        assert turns >= 2
        await asyncio.sleep(0)
        assert reader.take("6", 0.004)

    _run(scenario)


def test_time_is_shared_among_addresses_and_that_of_one_among_its_connections() -> None:
    reader = Reader()

    async def scenario() -> None:
        reader.take("first", 1.0)
        for number in range(50):
            reader.take(f"dear{number}", 0.01)
            reader.take(f"other{number}", 0.01)
        for number in range(3):
            reader.take(f"cheap{number}", 0.001)
            reader.take(f"beside{number}", 0.001, address="b")
        while len(reader.read) < 107:
            await asyncio.sleep(0)
        assert reader.read.index("beside2") < 8
        assert reader.read.index("cheap2") < 9
        await asyncio.sleep(0)
        assert not reader.turns._connections

    _run(scenario)


class Asker:
    """Requests that wait for their turn.

    Attributes:
        begun: the numbers of those that have begun, in order.
    """

    def __init__(self) -> None:
        self.turns = RequestTurns()
        self.begun: list[int] = []

    def ask(self, number: int, address: str = "a") -> asyncio.Task[None]:
        async def begin() -> None:
            await self.turns.wait(((address, number), ("server", 80)))
            self.begun.append(number)

        return asyncio.get_running_loop().create_task(begin())


def test_requests_begin_a_few_in_a_turn_in_the_order_in_which_they_came() -> None:
    async def scenario() -> None:
        asker = Asker()
        tasks = [asker.ask(number) for number in range(50)]
        most = 0
        while len(asker.begun) < 50:
            before = len(asker.begun)
            await asyncio.sleep(0)
            most = max(most, len(asker.begun) - before)
        await asyncio.gather(*tasks)
        assert asker.begun == [*range(50)]
        assert most <= 16  # those of a turn, and those of the next, which may be seen together

    _run(scenario)


def test_request_that_is_cancelled_while_it_waits_keeps_nobody_waiting() -> None:
    async def scenario() -> None:
        asker = Asker()
        tasks = [asker.ask(number) for number in range(30)]
        await asyncio.sleep(0)
        for task in tasks[10:20]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert asker.begun == [*range(10), *range(20, 30)]

    _run(scenario)


def test_request_of_another_address_is_before_those_of_one_that_asks_much_and_who_has_left_is_left_out() -> None:
    async def scenario() -> None:
        asker = Asker()
        tasks = [*[asker.ask(number) for number in range(100)], asker.ask(1000, "b")]
        await asyncio.sleep(0)
        for number in range(50, 100):
            asker.turns.leave((("a", number), ("server", 80)))
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(error, ClientGone) for error in ended] == [50 <= number < 100 for number in range(101)]
        assert asker.begun.index(1000) < 20
        assert sorted(asker.begun) == [*range(50), 1000]

    _run(scenario)


def test_nothing_is_kept_of_requests_that_have_had_their_turn() -> None:
    async def scenario() -> None:
        asker = Asker()
        await asyncio.gather(*[asker.ask(number) for number in range(100)])
        assert asker.turns._by_connection == {}

    _run(scenario)


def test_of_one_address_who_asked_first_is_first_however_much_is_asked_meanwhile() -> None:
    async def scenario() -> None:
        asker = Asker()
        tasks = [asker.ask(number) for number in range(100)]
        for number in range(100, 200):
            await asyncio.sleep(0)
            tasks.append(asker.ask(number))
        await asyncio.gather(*tasks)
        assert max(abs(place - number) for place, number in enumerate(asker.begun)) <= 16  # of neighbouring turns

    _run(scenario)


def test_addresses_that_ask_much_keep_another_waiting_for_a_request_of_each_at_most() -> None:
    async def scenario() -> None:
        asker = Asker()
        tasks = [asker.ask(number, f"greedy {number % 40}") for number in range(400)]
        for number in range(400, 500):
            await asyncio.sleep(0)
            tasks.append(asker.ask(number, f"greedy {number % 40}"))
            if number == 410:
                tasks.append(asker.ask(1000, "modest"))
                before = len(asker.begun)
        await asyncio.gather(*tasks)
        assert asker.begun.index(1000) - before <= 40 + 16

    _run(scenario)
