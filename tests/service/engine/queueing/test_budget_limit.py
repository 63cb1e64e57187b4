"""What the limit of budgets does under loads of all kinds, by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from statistics import mean

import pytest

from service.engine.inference_cost import InferenceCost
from service.engine.job import PendingJob
from service.engine.objective import Objective
from service.engine.queueing.budget_limit import WHOLE, BudgetLimit, Step
from tests.service.engine.queueing.simulation import Simulation, Tally

_EACH_S, _WORKERS, _OBJECTIVE_S = 0.01, 2, 0.05
_CAPACITY = _WORKERS / _EACH_S  # images a second with the whole network
_BUDGETS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
# With the least budget an image takes 0.2 + 0.8 * 0.4 of its time.
_MOST = 1 / 0.52

Simulate = Callable[..., Simulation]


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """A simulation with an objective and budgets, closed at the end."""

    def make(**changes: object) -> Simulation:
        settings: dict[str, object] = {"objective_s": _OBJECTIVE_S, "budgets": _BUDGETS}
        return opened.enter_context(closing(Simulation(lambda size: size * _EACH_S, **(settings | changes))))  # type: ignore[arg-type]

    with ExitStack() as opened:
        yield make


def _under(simulation: Simulation, load: float, seconds: float) -> Tally:
    simulation.offer(load * _CAPACITY, seconds)
    return simulation.run(seconds)


@pytest.mark.parametrize(("load", "least"), [(0.2, 0.998), (0.5, 0.96), (0.7, 0.88)])
def test_load_that_can_be_borne_is_answered_in_full(simulate: Simulate, load: float, least: float) -> None:
    simulation = simulate()
    _under(simulation, load, 5)
    tally = _under(simulation, load, 30)
    assert sum(share == 1.0 for share in tally.shares) >= least * len(tally.shares)
    assert tally.refused < 0.005 * len(tally.shares)


@pytest.mark.parametrize("load", [1.0, 1.2, 1.5, 1.7])
def test_more_than_the_capacity_is_answered_with_less_compute(simulate: Simulate, load: float) -> None:
    simulation = simulate()
    _under(simulation, load, 5)
    tally = _under(simulation, load, 30)
    offered = len(tally.shares) + tally.refused
    assert tally.refused < 0.01 * offered
    assert tally.within(_OBJECTIVE_S) > 0.98 * offered
    needed = (1 / load - 0.2) / 0.8
    assert needed - 0.3 < sum(tally.shares) / len(tally.shares) <= min(1.0, needed + 0.02)


@pytest.mark.parametrize("load", [2.2, 3.0])
def test_what_the_least_budget_cannot_bear_is_refused(simulate: Simulate, load: float) -> None:
    simulation = simulate()
    _under(simulation, load, 5)
    tally = _under(simulation, load, 20)
    assert sum(share == 0.4 for share in tally.shares) > 0.95 * len(tally.shares)
    assert tally.within(_OBJECTIVE_S) > 0.95 * _MOST * _CAPACITY * 20
    assert tally.refused > 0


def test_without_budgets_what_would_be_late_is_refused(simulate: Simulate) -> None:
    simulation = simulate(budgets=(1.0,))
    _under(simulation, 1.5, 5)
    tally = _under(simulation, 1.5, 20)
    assert tally.within(_OBJECTIVE_S) == tally.answered > 0.97 * _CAPACITY * 20


@pytest.mark.parametrize(("load", "least"), [(0.8, 0.97), (1.0, 0.92)])
def test_near_the_capacity_nearly_all_is_answered_in_time_without_budgets(
    simulate: Simulate, load: float, least: float
) -> None:
    simulation = simulate(budgets=(1.0,))
    _under(simulation, load, 5)
    tally = _under(simulation, load, 30)
    assert tally.within(_OBJECTIVE_S) > least * load * _CAPACITY * 30


def test_limit_rises_again_when_the_load_is_gone(simulate: Simulate) -> None:
    simulation = simulate()
    _under(simulation, 2.5, 5)
    assert simulation.engine.limit.share == pytest.approx(0.4, abs=0.02)
    assert _under(simulation, 0.3, 1).shares[-1] == 1.0
    simulation.run(60)
    assert simulation.engine.limit.share == pytest.approx(1.0)


def test_ramp_takes_the_limit_down_and_refuses_nothing(simulate: Simulate) -> None:
    simulation = simulate()
    refused = offered = 0
    for tenth in range(5, 17):
        tally = _under(simulation, tenth / 10, 5)
        refused, offered = refused + tally.refused, offered + tally.refused + len(tally.shares)
    assert refused < 0.01 * offered
    assert simulation.engine.limit.share < 0.6


def test_burst_is_answered_within_the_objective_or_refused(simulate: Simulate) -> None:
    simulation = simulate()
    simulation.offer(0.3 * _CAPACITY, 20)
    simulation.run(5)
    for _ in range(100):
        simulation.ask()
    tally = simulation.run(10)
    assert max(tally.latencies_s) < 1.5 * _OBJECTIVE_S
    assert simulation.run(5).shares[-1] == 1.0


def test_images_of_a_burst_that_wait_already_have_less(simulate: Simulate) -> None:
    simulation = simulate()
    _under(simulation, 0.3, 5)
    simulation.run(1)
    for _ in range(12):
        simulation.at(0.0, simulation.ask)
    shares = simulation.run(1).shares
    assert shares[:_WORKERS] == [1.0] * _WORKERS  # they ran before the others came
    assert max(shares[_WORKERS:6]) < 1.0
    assert shares[-1] == 1.0  # nobody waits behind it


def test_who_must_have_all_of_the_network_is_refused_or_in_time(simulate: Simulate) -> None:
    simulation = simulate()
    for number in range(330):
        simulation.at(0.02 * min(number, 300), lambda: simulation.ask(may_degrade=False))
    tally = simulation.run(10)
    assert set(tally.shares) == {1.0}
    assert tally.refused > 15
    assert max(tally.latencies_s) < 1.2 * _OBJECTIVE_S


def test_slow_workers_count_as_load(simulate: Simulate) -> None:
    simulation = simulate()
    simulation.offer(0.6 * _CAPACITY, 40)
    whole = mean(simulation.run(5).shares)
    assert whole > 0.95
    simulation.batch_s_of[0] = lambda size: 2 * size * _EACH_S
    tally = simulation.run(15)
    assert mean(tally.shares) < whole - 0.1
    assert tally.refused < 0.05 * len(tally.shares)
    simulation.batch_s_of[0] = lambda size: size * _EACH_S
    simulation.run(5)
    assert mean(simulation.run(10).shares) > 0.95


def test_requests_that_bring_no_image_count_for_nothing(simulate: Simulate) -> None:
    simulation = simulate()

    def come() -> None:
        simulation.engine.require_room()
        simulation.at(0.0005, come)

    simulation.at(0.0, come)
    tally = _under(simulation, 0.5, 10)
    assert sum(share == 1.0 for share in tally.shares) > 0.97 * len(tally.shares)


# Under overload a measured objective leaves so little waiting that workers idle now and then.
@pytest.mark.parametrize(("load", "least"), [(1.5, 0.97), (2.2, 0.85)])
def test_measured_objective_is_kept_too(simulate: Simulate, load: float, least: float) -> None:
    simulation = simulate(objective_s=None)
    _under(simulation, load, 5)
    tally = _under(simulation, load, 20)
    offered = len(tally.shares) + tally.refused
    assert tally.within(0.3) == tally.answered
    assert tally.answered > least * min(offered, _MOST * _CAPACITY * 20)


def _limit(objective_s: float, least: float = 0.4, total_macs: int = 1000) -> BudgetLimit:
    """One whose images took 10 ms with the whole network, which was run of late."""
    cost = InferenceCost()
    for _ in range(10):
        cost.note(total_macs, 0.01, 0.0)
    return BudgetLimit([WHOLE, Step(least, -1.0)], total_macs, cost, Objective(objective_s), lambda: 0.0)


@pytest.mark.parametrize(("objective_s", "share"), [(0.05, 0.4), (10.0, 1.0), (math.inf, 1.0)])
def test_many_at_once_are_limited_where_the_objective_is_short(objective_s: float, share: float) -> None:
    limit = _limit(objective_s)
    for _ in range(64):
        limit.note_arrival()
    assert limit.choose(1, 63, 2, 0.01, refuses=False).share == share


def test_image_that_comes_alone_has_all_of_the_network() -> None:
    limit = _limit(objective_s=0.012)
    limit.note_arrival()
    assert limit.choose(1, 0, 0.5, 0.01, refuses=False) == WHOLE
    assert limit.choose(1, 0, 0.5, 0.01, refuses=True).share == 0.4
    assert limit.share == pytest.approx(0.7)


def test_images_of_a_batch_wait_for_one_another() -> None:
    assert _limit(0.1).choose(5, 0, 1, 0.01, refuses=False).share == 0.4


def test_least_never_takes_nothing_or_longer_than_now() -> None:
    limit = _limit(0.1)
    assert limit.least_s(0.01) == pytest.approx(0.004)
    assert limit.least_s(0.0058) == pytest.approx(0.4 * 0.0058)  # a worker that has become faster than was learned
    cost = InferenceCost()
    cost.note(300, 0.003, 0.0)
    asked_for_less = BudgetLimit([WHOLE, Step(0.8, -1.0)], 1000, cost, Objective(0.1), lambda: 0.0)
    assert asked_for_less.least_s(0.003) == 0.003


def test_job_that_was_given_back_has_what_it_may_have_then() -> None:
    job = PendingJob(b"", 0.0, 1.0, lambda _: None, gate_offset=2.0, may_degrade=True)
    offsets = []
    for most in (-1.0, math.inf, 0.5):
        job.limit(most)
        offsets.append(job.gate_offset)
    assert offsets == [-1.0, 2.0, 0.5]
    firm = PendingJob(b"", 0.0, 1.0, lambda _: None, gate_offset=2.0)
    firm.limit(-1.0)
    assert firm.gate_offset == 2.0
