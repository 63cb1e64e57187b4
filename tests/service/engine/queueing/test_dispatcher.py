from __future__ import annotations

import asyncio

import pytest

from service.engine.errors import DeadlineExceeded
from service.engine.job import PendingRequest
from service.engine.queueing.dispatcher import Dispatcher
from tests.service.engine.queueing.queues import Clock, MakeBatcher, put

Batch = list[PendingRequest[str, str]]


class Worker:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def run(self, batch: Batch, /) -> None:
        self.batches.append([request.payload for request in batch])


class BusyWorker(Worker):
    """Runs something, and takes a batch ahead when it is asked to."""

    def __init__(self, dispatcher: Dispatcher[str, str]) -> None:
        super().__init__()
        self.takes_more = True
        self._dispatcher = dispatcher
        self.go_ahead()

    def go_ahead(self) -> None:
        if batch := self._dispatcher.ahead(self):
            self.run(batch)


def test_idle_worker_is_given_at_once_what_is_queued(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher, worker = make_batcher(max_batch=2), Worker()
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    dispatcher.come_free(worker)
    put(batcher, clock, *"abc")
    dispatcher.hand_out()
    assert worker.batches == [["a", "b"]]
    dispatcher.come_free(worker)
    assert worker.batches == [["a", "b"], ["c"]]


def test_worker_that_came_last_is_the_first_to_be_given_work(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher, workers = make_batcher(max_batch=1, workers=3), [Worker() for _ in range(3)]
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    for worker in workers:
        dispatcher.come_free(worker)
    for payload in "ab":
        put(batcher, clock, payload)
        dispatcher.hand_out()
    assert [worker.batches for worker in workers] == [[], [["b"]], [["a"]]]


def test_worker_that_left_is_given_nothing(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher, staying, leaving = make_batcher(), Worker(), Worker()
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    dispatcher.come_free(staying)
    dispatcher.come_free(leaving)
    assert dispatcher.leave(leaving)
    assert not dispatcher.leave(leaving)
    put(batcher, clock, "a")
    dispatcher.hand_out()
    assert (staying.batches, leaving.batches) == ([["a"]], [])


def test_worker_stays_idle_where_all_that_was_queued_is_worthless(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher, worker = make_batcher(), Worker()
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    (late,) = put(batcher, clock, "late", within=5.0)
    clock.now += 5.0
    dispatcher.come_free(worker)
    assert isinstance(late.outcomes[0], DeadlineExceeded)
    put(batcher, clock, "a")
    dispatcher.hand_out()
    assert worker.batches == [["a"]]


def test_request_that_is_made_while_another_is_told_that_it_is_too_late_finds_the_worker(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher, worker = make_batcher(), Worker()
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    (late,) = put(batcher, clock, "late", within=5.0)

    def ask_again(_: object) -> None:
        put(batcher, clock, "again")
        dispatcher.hand_out()

    late.answered = ask_again
    clock.now += 5.0
    dispatcher.come_free(worker)
    assert worker.batches == [["again"]]


def test_nothing_is_to_be_done_ahead_while_another_is_idle(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher, idle = make_batcher(max_batch=2, max_wait_ms=0), Worker()
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    busy = BusyWorker(dispatcher)
    dispatcher.come_free(idle)
    put(batcher, clock, "a")
    busy.go_ahead()
    dispatcher.hand_out()
    put(batcher, clock, "b")
    busy.go_ahead()
    assert (idle.batches, busy.batches) == ([["a"]], [["b"]])


def test_busy_worker_that_is_nearly_done_is_given_what_comes_later(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=1)
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    busy = BusyWorker(dispatcher)
    busy.takes_more = False
    put(batcher, clock, "a")
    dispatcher.hand_out()
    assert busy.batches == []
    busy.takes_more = True
    put(batcher, clock, "b")
    dispatcher.hand_out()
    assert busy.batches == [["a"]]  # which is as much as it takes
    dispatcher.hand_out()
    assert len(batcher) == 1


def test_idle_worker_is_given_what_comes_later_before_a_busy_one(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher, idle = make_batcher(max_batch=1), Worker()
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    busy = BusyWorker(dispatcher)
    dispatcher.come_free(idle)
    for payload in "ab":
        put(batcher, clock, payload)
        dispatcher.hand_out()
    assert (idle.batches, busy.batches) == ([["a"]], [["b"]])


def test_busy_worker_that_asked_first_is_given_first(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=1)
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    workers = [BusyWorker(dispatcher) for _ in range(3)]
    workers[0].go_ahead()  # to ask again is not to ask later
    for payload in "abcd":
        put(batcher, clock, payload)
        dispatcher.hand_out()
    assert [worker.batches for worker in workers] == [[["a"]], [["b"]], [["c"]]]
    assert len(batcher) == 1


def test_busy_worker_is_given_nothing_where_batches_wait_for_company(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2, max_wait_ms=60_000)
    dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
    busy = BusyWorker(dispatcher)
    put(batcher, clock, *"ab")
    dispatcher.hand_out()
    assert busy.batches == []


@pytest.fixture
def real() -> float:
    """A wait for company that a test can wait for, in ms."""
    return 30.0


def test_batch_is_handed_out_when_it_has_waited_for_company(
    make_batcher: MakeBatcher, clock: Clock, real: float
) -> None:
    batcher, worker = make_batcher(max_batch=4, max_wait_ms=real), Worker()

    async def scenario() -> None:
        dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
        dispatcher.come_free(worker)
        put(batcher, clock, "a")
        dispatcher.hand_out()
        await asyncio.sleep(0)
        put(batcher, clock, "b")
        dispatcher.hand_out()
        assert worker.batches == []
        clock.now += real / 1000
        async with asyncio.timeout(30):
            while not worker.batches:
                await asyncio.sleep(0.001)

    asyncio.run(scenario())
    assert worker.batches == [["a", "b"]]


def test_timer_that_comes_too_early_waits_on(make_batcher: MakeBatcher, clock: Clock, real: float) -> None:
    batcher, worker = make_batcher(max_batch=2, max_wait_ms=real), Worker()

    async def scenario() -> None:
        dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
        dispatcher.come_free(worker)
        put(batcher, clock, "a")
        dispatcher.hand_out()
        await asyncio.sleep(2 * real / 1000)  # on this clock no time has passed
        assert worker.batches == []
        clock.now += real / 1000
        await asyncio.sleep(2 * real / 1000)

    asyncio.run(scenario())
    assert worker.batches == [["a"]]


def test_full_batch_is_handed_out_at_once(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher, workers = make_batcher(max_batch=2, max_wait_ms=60_000), [Worker(), Worker()]

    async def scenario() -> None:
        dispatcher = Dispatcher(batcher, make_batcher(max_batch=1), clock)
        for worker in workers:
            dispatcher.come_free(worker)
        for payload in "abc":
            put(batcher, clock, payload)
            dispatcher.hand_out()

    asyncio.run(scenario())
    assert [worker.batches for worker in workers] == [[], [["a", "b"]]]
    assert len(batcher) == 1


class Lines:
    """Requests that are dear and others, and workers that run what they are given until they are told that it is done.

    Args:
        make_batcher: of each line.
        clock: of all.
        workers: how many there are.
    """

    def __init__(self, make_batcher: MakeBatcher, clock: Clock, workers: int) -> None:
        self.clock = clock
        self.batcher = make_batcher(max_batch=1, workers=workers)
        self.dear = make_batcher(max_batch=1, workers=max(1, workers // 2))
        self.dispatcher = Dispatcher(self.batcher, self.dear, clock)
        self.running: dict[Runner, str] = {}
        for _ in range(workers):
            self.dispatcher.come_free(Runner(self))

    @property
    def run_now(self) -> str:
        """What runs, in alphabetical order."""
        return "".join(sorted(self.running.values()))

    def ask(self, payloads: str) -> None:
        """Ask for small letters, which are cheap, and large ones, which are dear."""
        for payload in payloads:
            (request,) = put(self.dear if payload.isupper() else self.batcher, self.clock, payload, within=1000.0)
            request.dear = payload.isupper()
            self.dispatcher.hand_out()

    def end(self, payload: str) -> None:
        """Have a worker be done with what it runs."""
        (runner,) = [each for each, running in self.running.items() if running == payload]
        del self.running[runner]
        if payload.isupper():
            self.dispatcher.end_dear()
        self.dispatcher.come_free(runner)


class Runner:
    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def run(self, batch: Batch, /) -> None:
        (request,) = batch
        self._lines.running[self] = request.payload


def test_dear_requests_have_half_of_the_workers_as_long_as_others_come(make_batcher: MakeBatcher, clock: Clock) -> None:
    lines = Lines(make_batcher, clock, workers=4)
    lines.ask("aABCD")
    assert lines.run_now == "ABa"
    lines.ask("bcd")
    assert lines.run_now == "ABab"
    lines.end("A")
    assert lines.run_now == "BCab"
    lines.end("a")
    assert lines.run_now == "BCbc"


def test_dear_requests_have_all_workers_where_no_others_come(make_batcher: MakeBatcher, clock: Clock) -> None:
    lines = Lines(make_batcher, clock, workers=2)
    lines.ask("ABC")
    assert lines.run_now == "AB"
    lines.ask("a")
    lines.end("A")
    assert lines.run_now == "Ba"
    lines.end("a")
    assert lines.run_now == "B"  # another may come any moment
    lines.ask("D")
    clock.now += 11.0
    lines.dispatcher.hand_out()
    assert lines.run_now == "BC"


def test_only_worker_has_as_much_time_for_others_as_a_dear_request_took(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    async def scenario() -> None:
        lines = Lines(make_batcher, clock, workers=1)
        lines.ask("xABabcdef")
        lines.end("x")
        assert lines.run_now == "A"
        clock.now += 1.0
        lines.end("A")
        for cheap in "abcd":
            assert lines.run_now == cheap
            clock.now += 0.3
            lines.end(cheap)
        assert lines.run_now == "B"

    asyncio.run(scenario())


def test_only_worker_is_kept_free_between_the_requests_of_a_client_that_asks_again_and_again(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    async def scenario() -> None:
        lines = Lines(make_batcher, clock, workers=1)
        lines.ask("xAB")
        lines.end("x")
        clock.now += 0.05
        lines.end("A")
        assert lines.run_now == ""
        lines.ask("a")
        assert lines.run_now == "a"
        clock.now += 0.01
        lines.end("a")
        assert lines.run_now == ""
        clock.now += 0.05
        await asyncio.sleep(0.1)  # until the dispatcher comes back by itself
        assert lines.run_now == "B"

    asyncio.run(scenario())
