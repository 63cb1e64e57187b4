"""How much may wait while more comes in than can be done."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from service.engine.errors import Overloaded
from service.engine.queueing.overload import Load, Overload
from tests.service.engine.queueing.desk import Clock, Desk

_CAPACITY = 20
_LOAD = Load(capacity=_CAPACITY, worked_until=math.inf, service_s=0.1, workers=2)  # so that 20 are done in a second


class Told(Overload):
    """An overload that began with a refusal, and what was told of it."""

    def __init__(self, clock: Clock, load: Load = _LOAD) -> None:
        self.told: list[bool] = []
        super().__init__(clock, self.told.append)
        self.note_refused(load)


def _offer(overload: Overload, clock: Clock, per_s: float, seconds: float, load: Load = _LOAD) -> float:
    """Offer bunches of which all but two are refused; return the seconds until the overload ended, or all."""
    for passed in range(round(seconds * 4)):
        if not overload.lasts(load):
            return passed / 4
        clock.now += 0.25
        for number in range(round(per_s / 4)):
            if number < 2 or not overload.lasts(load):
                overload.note_accepted(load)
            else:
                overload.note_refused(load)
    return seconds


@pytest.mark.parametrize(("per_s", "lasts_s"), [(12, 2), (16, 4), (20, 60), (24, 60), (60, 60)])
def test_overload_ends_when_a_queue_that_took_all_would_be_empty(clock: Clock, per_s: float, lasts_s: float) -> None:
    assert _offer(Told(clock), clock, per_s, 60) == pytest.approx(lasts_s, abs=0.5)


def test_long_overload_takes_no_longer_to_end_than_a_full_queue(clock: Clock) -> None:
    overload = Told(clock)
    assert _offer(overload, clock, 60, 600) == 600
    assert overload.lasts_long(_LOAD)
    assert _offer(overload, clock, 16, 60) == pytest.approx(4, abs=0.5)


def test_workers_that_seem_slower_under_overload_are_reckoned_with_as_they_were(clock: Clock) -> None:
    slower = replace(_LOAD, service_s=0.15)
    assert _offer(Told(clock), clock, 16, 60, slower) == pytest.approx(4, abs=0.5)


def test_overload_ends_where_what_comes_takes_less_than_what_began_it(clock: Clock) -> None:
    overload = Told(clock, replace(_LOAD, service_s=0.3))
    assert _offer(overload, clock, 16, 60) < 20


def test_overload_does_not_end_as_long_as_workers_that_hang_have_something_to_do(clock: Clock) -> None:
    hanging = replace(_LOAD, worked_until=clock.now)
    overload = Told(clock, hanging)
    for _ in range(60):
        clock.now += 0.1
        overload.note_refused(hanging)
    assert overload.lasts(hanging)
    assert overload.lasts_long(hanging)


def test_workers_that_are_gone_do_not_work_it_off(clock: Clock) -> None:
    overload = Told(clock)
    assert _offer(overload, clock, 12, 60, replace(_LOAD, workers=1)) == 60
    assert _offer(overload, clock, 12, 60) < 3


def test_overload_that_has_ended_comes_back_only_with_a_refusal(clock: Clock) -> None:
    overload = Told(clock)
    _offer(overload, clock, 12, 60)
    overload.note_accepted(_LOAD)
    assert overload.told == [True, False]
    assert not overload.lasts(replace(_LOAD, service_s=50.0))
    overload.note_refused(_LOAD)
    assert overload.told == [True, False, True]


def test_slow_jobs_need_a_longer_calm(clock: Clock) -> None:
    slow = replace(_LOAD, service_s=0.5, workers=1)
    overload = Told(clock, slow)
    clock.now += 4.9
    assert overload.lasts(slow)
    clock.now += 0.1
    assert not overload.lasts(slow)


def test_as_long_as_nobody_knows_how_fast_workers_are_only_calm_ends_an_overload(clock: Clock) -> None:
    unknown = replace(_LOAD, service_s=0.0)
    overload = Told(clock, unknown)
    assert _offer(overload, clock, 12, 60, unknown) == 60
    clock.now += 1.0
    assert not overload.lasts(unknown)


def test_beginning_and_end_of_an_overload_are_told_once(clock: Clock) -> None:
    overload = Told(clock)
    overload.note_refused(_LOAD)
    assert overload.told == [True]
    clock.now += 2.0
    overload.note_accepted(_LOAD)
    overload.note_accepted(_LOAD)
    assert overload.told == [True, False]


def _overload(desk: Desk) -> None:
    """Refuse something, and empty the queue."""
    desk.put("x" * (_CAPACITY - len(desk.scheduler)))
    with pytest.raises(Overloaded):
        desk.put("x")
    desk.rest()


def _room(desk: Desk) -> int:
    """How many are accepted."""
    for count in range(_CAPACITY + 1):
        try:
            desk.put("y")
        except Overloaded:
            return count
    raise AssertionError("there was no end to it")


@pytest.mark.parametrize(
    ("workers", "max_batch", "max_wait_ms", "room"),
    [(1, 1, 0, 1), (2, 1, 0, 2), (2, 4, 0, 8), (2, 4, 5, 8), (3, 1, 5, 3), (40, 1, 0, _CAPACITY)],
)
def test_after_a_refusal_only_so_much_may_wait_as_workers_go_on_with(
    clock: Clock, workers: int, max_batch: int, max_wait_ms: float, room: int
) -> None:
    desk = Desk(clock, capacity=_CAPACITY, workers=workers, max_batch=max_batch, max_wait_ms=max_wait_ms)
    _overload(desk)
    assert _room(desk) == room


def test_after_a_second_without_refusals_a_burst_may_fill_the_queue(clock: Clock) -> None:
    desk = Desk(clock, capacity=_CAPACITY, workers=2, max_batch=1)
    _overload(desk)
    clock.now += 0.9
    assert _room(desk) == 2  # and the next is refused, so that the second begins anew
    clock.now += 0.9
    assert desk.lane.overloaded
    clock.now += 0.1
    assert not desk.lane.overloaded
    assert _room(desk) == _CAPACITY - 2


def test_what_workers_were_given_ahead_waits_as_well(clock: Clock) -> None:
    desk = Desk(clock, capacity=_CAPACITY, workers=3, max_batch=1)
    _overload(desk)
    desk.put("abc")
    for slot in desk.slots[:2]:
        desk.scheduler.take_in(slot)
    assert (desk.given[0][-2:], desk.given[1]) == (["a", "b"], ["c"])  # b was given ahead
    assert _room(desk) == 2
