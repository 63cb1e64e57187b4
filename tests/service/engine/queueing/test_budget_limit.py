"""What the limit of budgets does under loads of all kinds, by simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from service.engine.queueing.budget_limit import BudgetLimit, Pressure
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


@pytest.mark.parametrize(("load", "least"), [(0.2, 1.0), (0.5, 0.98), (0.7, 0.85)])
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
    assert simulation.engine.limit.share == 0.4
    _under(simulation, 0.3, 10)
    assert simulation.engine.limit.share == 1.0


def test_silence_is_no_load(simulate: Simulate) -> None:
    simulation = simulate()
    _under(simulation, 2.5, 5)
    simulation.run(60)
    tally = _under(simulation, 0.3, 10)
    assert tally.shares[-1] == 1.0
    assert sum(share == 1.0 for share in tally.shares) > 0.4 * len(tally.shares)


@pytest.mark.parametrize("load", [0.6, 0.9, 1.1, 1.4, 1.8])
def test_limit_does_not_go_up_and_down(simulate: Simulate, load: float) -> None:
    simulation = simulate()
    _under(simulation, load, 10)
    assert _under(simulation, load, 60).moves < 60  # less than one a second


def test_ramp_takes_the_limit_down_step_by_step_and_refuses_nothing(simulate: Simulate) -> None:
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


def test_slow_workers_count_as_load(simulate: Simulate) -> None:
    simulation = simulate()
    simulation.offer(0.6 * _CAPACITY, 40)
    simulation.run(5)
    assert simulation.engine.limit.share == 1.0
    simulation.batch_s_of[0] = lambda size: 2 * size * _EACH_S
    tally = simulation.run(15)
    assert tally.shares[-1] < 1.0
    assert tally.refused < 0.03 * len(tally.shares)
    simulation.batch_s_of[0] = lambda size: size * _EACH_S
    assert simulation.run(15).shares[-1] == 1.0


def test_limit_without_steps_never_moves() -> None:
    limit = BudgetLimit([1.0], lambda: 0.0)
    for _ in range(100):
        limit.note_arrival(Pressure(10.0, False, 0.01, 1, lambda _: 1.0))
    assert (limit.share, limit.is_fixed) == (1.0, True)


def test_nobody_is_limited_as_long_as_nobody_knows_what_is_too_long() -> None:
    limit = BudgetLimit([1.0, 0.5], lambda: 0.0)
    limit.note_arrival(Pressure(10.0, False, float("inf"), 1, lambda _: 1.0))
    assert limit.share == 1.0


def test_limit_rises_while_nothing_comes() -> None:
    now = [0.0]
    limit = BudgetLimit(_BUDGETS, lambda: now[0])
    for _ in range(1000):
        now[0] += 0.001
        limit.note_arrival(Pressure(1.0, False, 0.05, 2, lambda share: 0.01 * share))
    assert limit.share == 0.4
    now[0] += 1.5
    assert limit.share == 0.6
    now[0] += 10
    assert limit.share == 1.0


def test_requests_that_bring_no_image_count_for_nothing(simulate: Simulate) -> None:
    simulation = simulate()

    def come() -> None:
        simulation.engine.require_room()
        simulation.at(0.0005, come)

    simulation.at(0.0, come)
    tally = _under(simulation, 0.5, 10)
    assert sum(share == 1.0 for share in tally.shares) > 0.97 * len(tally.shares)


def test_limit_falls_where_images_are_refused_though_nobody_waits_for_long() -> None:
    now = [0.0]
    limit = BudgetLimit(_BUDGETS, lambda: now[0])
    for _ in range(500):
        now[0] += 0.004
        limit.note_arrival(Pressure(0.0, True, 0.05, 2, lambda share: 0.01 * share))
    assert limit.share < 1.0


# Under overload a measured objective leaves so little waiting that workers idle now and then.
@pytest.mark.parametrize(("load", "least"), [(1.5, 0.97), (2.2, 0.85)])
def test_measured_objective_is_kept_too(simulate: Simulate, load: float, least: float) -> None:
    simulation = simulate(objective_s=None)
    _under(simulation, load, 5)
    tally = _under(simulation, load, 20)
    offered = len(tally.shares) + tally.refused
    assert tally.within(0.3) == tally.answered
    assert tally.answered > least * min(offered, _MOST * _CAPACITY * 20)
