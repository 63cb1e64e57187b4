"""Several models on the same workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.engine.errors import EngineStopped, Overloaded
from service.engine.queueing.scheduler import AHEAD_S
from service.engine.runtimes.tuning import BatchPolicy
from tests.service.engine.queueing.desk import Clock, Desk, Put
from tests.service.engine.queueing.simulation import Simulation


def _second_lane(desk: Desk, weight: float = 1.0, max_batch: int = 8, capacity: int = 100) -> None:
    policy = BatchPolicy(len(desk.workers), max_batch, 0.0)
    desk.other = desk.scheduler.open_lane(1, capacity, policy, weight=weight)


def _put(desk: Desk, names: str) -> list[Put]:
    """Submit a job of the second model for each letter."""
    jobs = []
    for name in names:
        job = Put(name, desk.clock.now, desk.clock.now + 1000)
        job.model = 1
        desk.other.submit(job)
        jobs.append(job)
    return jobs


def test_batch_has_jobs_of_one_model(clock: Clock) -> None:
    desk = Desk(clock)
    _second_lane(desk)
    desk.put("abc")
    _put(desk, "xyz")
    assert sorted(desk.rest()) == ["abc", "xyz"]


def test_models_take_turns_by_the_time_they_take(clock: Clock) -> None:
    desk = Desk(clock, max_batch=1)
    _second_lane(desk, max_batch=1)
    desk.put("a" * 12)
    _put(desk, "x" * 12)
    slot = desk.slots[0]
    desk.scheduler.take_in(slot)
    order = ""
    for _ in range(16):
        running = slot.batches[0][0].image.decode()
        order += desk.go_on(slot, AHEAD_S * (3 if running == "a" else 1))
    assert order.count("x") / order.count("a") == pytest.approx(3, rel=0.35)


def test_full_lane_refuses_and_leaves_the_other_alone(clock: Clock) -> None:
    desk = Desk(clock, capacity=2)
    _second_lane(desk, capacity=2)
    desk.put("ab")
    with pytest.raises(Overloaded):
        desk.put("c")
    _put(desk, "xy")
    assert (len(desk.lane), len(desk.other), len(desk.scheduler)) == (2, 2, 4)
    assert desk.lane.overloaded
    assert not desk.other.overloaded


def test_closed_lane_takes_nothing_and_the_other_goes_on(clock: Clock) -> None:
    desk = Desk(clock)
    _second_lane(desk)
    _put(desk, "x")
    desk.other.close()
    with pytest.raises(EngineStopped):
        _put(desk, "y")
    assert desk.rest() == ["x"]
    assert not desk.scheduler.runs(1)
    desk.scheduler.close_lane(desk.other)
    desk.put("a")
    assert desk.rest() == ["a"]


def test_lane_counts_on_its_part_of_the_workers_while_others_want_some(clock: Clock) -> None:
    desk = Desk(clock, workers=4)
    _second_lane(desk, weight=3.0)
    for slot in desk.slots:
        desk.scheduler.take_in(slot)
    assert desk.lane.workers == 4
    _put(desk, "x")
    assert desk.lane.workers == 1
    assert desk.other.workers == 4
    desk.put("a")
    assert desk.other.workers == 3


def test_worker_that_retires_runs_what_it_has_and_is_given_no_more(clock: Clock) -> None:
    desk = Desk(clock, workers=2, max_batch=1, idle=True)
    desk.put("ab")
    desk.scheduler.retire(desk.slots[0])
    desk.put("cdef")
    desk.go_on(desk.slots[0])
    assert not desk.slots[0].batches
    assert not desk.scheduler.set_aside(desk.slots[0])
    desk.scheduler.forget(desk.slots[0])
    assert desk.scheduler.workers == 1


@pytest.fixture
def two() -> Iterator[Simulation]:
    """Two workers and two models, of which the second takes ten times as long for an image."""
    simulation = Simulation(lambda size: 0.002 * size, other_batch_s=lambda size: 0.02 * size)
    yield simulation
    simulation.close()


def test_busy_model_cannot_starve_another(two: Simulation) -> None:
    two.offer(per_s=200, seconds=20, model=1)  # twice what both workers can do
    two.run(5)
    two.offer(per_s=100, seconds=15)  # a tenth of what they can
    tally = two.run(15)
    assert tally.refused + tally.late <= 0.01 * tally.answered
    assert tally.p99_s < 0.06  # about three of the other's images


def test_two_busy_models_have_half_of_the_workers_each(two: Simulation) -> None:
    two.offer(per_s=2000, seconds=20)
    two.offer(per_s=200, seconds=20, model=1)
    two.run(5)
    tally, other = two.run(15), two.other_tally
    assert tally.answered * 0.002 == pytest.approx(other.answered * 0.02, rel=0.1)
    assert tally.answered * 0.002 + other.answered * 0.02 > 0.97 * 2 * 15
