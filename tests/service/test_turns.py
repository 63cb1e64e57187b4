from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from service.errors import ClientGone
from service.turns import ReadingTurns, RequestTurns, Shares, Taken
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

    def take(self, name: str, seconds: float, size: int = 100, taken: Taken | None = None, address: str = "a") -> bool:
        return self.turns.take(address, taken or Taken(), size, self.step(name, seconds))


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


def test_who_has_taken_least_is_first_and_then_who_has_sent_least() -> None:
    reader = Reader()
    greedy = Taken()
    greedy.add(1.0, reader.clock())

    async def scenario() -> None:
        reader.take("first", 1.0)
        reader.take("greedy", 0.0, size=1, taken=greedy)
        reader.take("large", 0.0, size=8192)
        reader.take("small", 0.0, size=60)
        reader.take("other address", 0.0, size=8192, taken=greedy, address="b")
        await asyncio.sleep(0)
        assert reader.read == ["first", "other address", "small", "large", "greedy"]

    _run(scenario)


def test_what_was_taken_counts_for_less_as_time_passes() -> None:
    taken = Taken()
    taken.add(0.8, 10.0)
    assert [round(taken.at(now), 6) for now in (10.0, 11.0, 13.0)] == [0.8, 0.4, 0.1]
    taken.add(0.1, 13.0)
    assert round(taken.at(13.0), 6) == 0.2


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
            await self.turns.wait((address, number))
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
            asker.turns.leave(("a", number))
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(error, ClientGone) for error in ended] == [50 <= number < 100 for number in range(101)]
        assert asker.begun.index(1000) < 20
        assert sorted(asker.begun) == [*range(50), 1000]

    _run(scenario)


def test_addresses_are_forgotten_when_there_are_many() -> None:
    shares = Shares()
    shares.of("busy", 100.0).add(1.0, 100.0)
    for number in range(5000):
        shares.of(str(number), 101.0)
    assert len(shares._of) < 2000
    assert shares.of("busy", 101.0).at(101.0) == 0.5


def test_nothing_is_kept_of_requests_that_have_had_their_turn() -> None:
    async def scenario() -> None:
        asker = Asker()
        await asyncio.gather(*[asker.ask(number) for number in range(100)])
        assert asker.turns._by_client == {}

    _run(scenario)
