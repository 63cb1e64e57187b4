"""How much may wait while more comes in than can be done."""

from __future__ import annotations

from contextlib import suppress

import pytest

from service.engine.errors import Overloaded
from service.engine.queueing.batcher import Batcher
from service.engine.runtimes.tuning import BatchPolicy
from tests.service.engine.queueing.queues import Clock, MakeBatcher, put, until_empty

_CAPACITY = 20


def _overload(batcher: Batcher[str, str], clock: Clock) -> None:
    """Refuse something, and empty the queue."""
    put(batcher, clock, *"x" * (_CAPACITY - len(batcher)))
    with pytest.raises(Overloaded):
        put(batcher, clock, "x")
    list(until_empty(batcher))


def _room(batcher: Batcher[str, str], clock: Clock) -> int:
    """How many are accepted."""
    for count in range(_CAPACITY + 1):
        try:
            put(batcher, clock, "y")
        except Overloaded:
            return count
    raise AssertionError("there was no end to it")


@pytest.mark.parametrize(
    ("workers", "max_batch", "max_wait_ms", "room"),
    [(1, 1, 0, 1), (2, 1, 0, 2), (2, 4, 0, 8), (2, 4, 5, 8), (3, 1, 5, 3), (40, 1, 0, _CAPACITY)],
)
def test_after_a_refusal_only_so_much_may_wait_as_workers_go_on_with(
    make_batcher: MakeBatcher, clock: Clock, workers: int, max_batch: int, max_wait_ms: float, room: int
) -> None:
    batcher = make_batcher(_CAPACITY, workers, max_batch, max_wait_ms)
    _overload(batcher, clock)
    assert _room(batcher, clock) == room


def test_after_a_second_without_refusals_a_burst_may_fill_the_queue(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(_CAPACITY, workers=2, max_batch=1)
    _overload(batcher, clock)
    clock.now += 0.9
    assert _room(batcher, clock) == 2  # and the next is refused, so that the second begins anew
    clock.now += 0.9
    assert batcher.overload
    clock.now += 0.1
    assert not batcher.overload
    assert _room(batcher, clock) == _CAPACITY - 2


def _offer(batcher: Batcher[str, str], clock: Clock, per_s: float, seconds: float) -> float:
    """Offer a load of bunches that do not fit under overload; return the seconds until the overload ended, or all."""
    for passed in range(round(seconds * 4)):
        if not batcher.overload:
            return passed / 4
        clock.now += 0.25
        for _ in range(round(per_s / 4)):
            with suppress(Overloaded):
                put(batcher, clock, "z")
        list(until_empty(batcher))
    return seconds


@pytest.mark.parametrize(("per_s", "lasts_s"), [(12, 2), (16, 4), (20, 60), (24, 60), (60, 60)])
def test_overload_ends_when_a_queue_that_took_all_would_be_empty(
    make_batcher: MakeBatcher, clock: Clock, per_s: float, lasts_s: float
) -> None:
    batcher = make_batcher(_CAPACITY, workers=2, max_batch=1)
    batcher.note_speed(seconds=0.1, requests=1)  # so that 20 are done in a second
    _overload(batcher, clock)
    assert _offer(batcher, clock, per_s, 60) == pytest.approx(lasts_s, abs=0.5)
    if not batcher.overload:
        assert _room(batcher, clock) == _CAPACITY


def test_long_overload_takes_no_longer_to_end_than_a_full_queue(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(_CAPACITY, workers=2, max_batch=1)
    batcher.note_speed(seconds=0.1, requests=1)
    _overload(batcher, clock)
    assert _offer(batcher, clock, 60, 600) == 600
    assert _offer(batcher, clock, 16, 60) == pytest.approx(4, abs=0.5)


def test_requests_that_take_long_count_for_what_they_take(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(_CAPACITY, workers=2, max_batch=1)
    for _ in range(30):
        for _ in range(9):
            batcher.note_speed(seconds=0.01, requests=1)
        batcher.note_speed(seconds=0.91, requests=1)  # a mean of a tenth of a second
    _overload(batcher, clock)
    for per_s, lasts in ((24, True), (12, False)):
        for _ in range(40):
            for number in range(10):
                batcher.note_speed(seconds=0.91 if number == 9 else 0.01, requests=1)
                _offer(batcher, clock, per_s, 0.25)
        assert bool(batcher.overload) == lasts


def test_workers_that_seem_slower_under_overload_are_reckoned_with_as_they_were(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher = make_batcher(_CAPACITY, workers=2, max_batch=1)
    batcher.note_speed(seconds=0.1, requests=1)
    _overload(batcher, clock)
    for _ in range(100):
        batcher.note_speed(seconds=0.15, requests=1)
    assert _offer(batcher, clock, 16, 60) == pytest.approx(4, abs=0.5)


def test_overload_ends_where_what_comes_takes_less_than_what_began_it(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(_CAPACITY, workers=2, max_batch=1)
    batcher.note_speed(seconds=0.3, requests=1)
    _overload(batcher, clock)
    for _ in range(1000):
        batcher.note_speed(seconds=0.1, requests=1)
    assert _offer(batcher, clock, 16, 60) < 20


def test_overload_does_not_end_as_long_as_something_waits(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(_CAPACITY, workers=1, max_batch=1)  # of which the worker hangs
    batcher.note_speed(seconds=0.01, requests=1)
    put(batcher, clock, *"x" * _CAPACITY)
    for _ in range(60):
        with pytest.raises(Overloaded):
            put(batcher, clock, "x")
        clock.now += 0.1
    assert batcher.overload
    assert batcher.overload.lasting


def test_workers_that_are_gone_do_not_work_it_off(clock: Clock) -> None:
    workers = [2]
    batcher: Batcher[str, str] = Batcher(_CAPACITY, BatchPolicy(2, 1, 0), clock, workers=lambda: workers[0])
    batcher.note_speed(seconds=0.1, requests=1)
    _overload(batcher, clock)
    workers[0] = 1
    assert _offer(batcher, clock, 12, 60) == 60
    workers[0] = 2
    assert _offer(batcher, clock, 12, 60) < 3


def test_overload_that_has_ended_comes_back_only_with_a_refusal(clock: Clock) -> None:
    told: list[bool] = []
    batcher: Batcher[str, str] = Batcher(_CAPACITY, BatchPolicy(2, 1, 0), clock, on_overload=told.append)
    batcher.note_speed(seconds=0.1, requests=1)
    _overload(batcher, clock)
    _offer(batcher, clock, 12, 60)
    put(batcher, clock, "a")
    assert told == [True, False]
    batcher.note_speed(seconds=50.0, requests=1)
    assert not batcher.overload
    assert _room(batcher, clock) == _CAPACITY - 1
    assert told == [True, False, True]


def test_slow_requests_need_a_longer_calm(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(_CAPACITY, workers=1, max_batch=1)
    batcher.note_speed(seconds=0.5, requests=1)
    _overload(batcher, clock)
    clock.now += 4.9
    assert batcher.overload
    clock.now += 0.1
    assert not batcher.overload


def test_as_long_as_nobody_knows_how_fast_workers_are_only_calm_ends_an_overload(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher = make_batcher(_CAPACITY, workers=2, max_batch=1)
    _overload(batcher, clock)
    assert _offer(batcher, clock, 12, 60) == 60
    clock.now += 1.0
    assert not batcher.overload


def test_what_workers_were_given_ahead_waits_as_well(clock: Clock) -> None:
    ahead = [0, 0, 0]  # of each worker
    batcher: Batcher[str, str] = Batcher(_CAPACITY, BatchPolicy(3, 1, 0), clock, given_ahead=lambda: sum(ahead))
    _overload(batcher, clock)
    for ahead[0], room in ((2, 1), (3, 0), (7, 0), (0, 3)):
        assert _room(batcher, clock) == room
        list(until_empty(batcher))


def test_beginning_and_end_of_an_overload_are_told_once(clock: Clock) -> None:
    told: list[bool] = []
    batcher: Batcher[str, str] = Batcher(_CAPACITY, BatchPolicy(1, 1, 0), clock, on_overload=told.append)
    _overload(batcher, clock)
    _room(batcher, clock)
    assert told == [True]
    list(until_empty(batcher))
    clock.now += 1.0
    put(batcher, clock, *"ab")
    assert told == [True, False]
    _overload(batcher, clock)
    assert told == [True, False, True]
