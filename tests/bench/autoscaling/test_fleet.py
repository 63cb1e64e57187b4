"""What replicas do in a second, and that their budget is the service's own."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from random import Random
from statistics import harmonic_mean

import pytest

from bench.autoscaling.fleet import Fleet, Replica
from service.engine.inference_cost import InferenceCost
from service.engine.objective import Objective
from service.engine.queueing.budget_limit import WHOLE, BudgetLimit, Step

_PLAIN = Replica((100.0,), objective_s=0.2)
_BUDGETS = Replica((100.0, 120.0, 150.0), objective_s=0.2)


def test_what_would_wait_for_longer_than_the_objective_is_refused() -> None:
    fleet = Fleet(_PLAIN, 2)
    first = fleet.serve(300, 0)
    assert (first.answered, first.refused) == (200, pytest.approx(60))
    assert first.busy == 1
    # The forty that wait are answered next.
    assert fleet.serve(0, 1).answered == pytest.approx(40)


def test_no_image_is_lost() -> None:
    fleet = Fleet(_BUDGETS, 3)
    arrivals = [100, 700, 20, 460, 455, 300, 1_000, 0, 0]
    seconds = [fleet.serve(arrived, now_s) for now_s, arrived in enumerate(arrivals)]
    assert sum(second.answered + second.refused for second in seconds) == pytest.approx(sum(arrivals))


def test_replica_answers_once_it_is_ready_and_is_paid_for_from_the_start() -> None:
    fleet = Fleet(_PLAIN, 1)
    fleet.scale(2, 0)
    seconds = [fleet.serve(50, now_s) for now_s in range(40)]
    assert [second.ready for second in seconds] == [1] * 30 + [2] * 10
    assert {second.replicas for second in seconds} == {2}


def test_replicas_that_are_not_ready_go_first() -> None:
    fleet = Fleet(_PLAIN, 3)
    fleet.scale(5, 0)
    fleet.scale(4, 10)
    assert (fleet.ready, fleet.size) == (3, 4)
    fleet.scale(2, 11)
    assert (fleet.ready, fleet.size) == (2, 2)


def test_nothing_is_refused_that_less_compute_can_answer() -> None:
    second = Fleet(_BUDGETS, 1).serve(140, 0)
    assert (second.answered, second.refused, second.degraded) == (140, 0, 140)


def test_budget_rises_again_when_the_load_falls() -> None:
    fleet = Fleet(_BUDGETS, 1)
    fleet.serve(140, 0)
    degraded = [fleet.serve(85, now_s).degraded for now_s in range(1, 4)]
    assert degraded == [0, 0, 0]


def test_more_wait_the_busier_the_workers_are() -> None:
    waiting = []
    for load in (50, 80, 95):
        second = Fleet(_PLAIN, 1).serve(load, 0)
        waiting.append(second.ongoing - _PLAIN.workers * second.busy)
    assert waiting == sorted(waiting)
    assert waiting[-1] <= _PLAIN.objective_s * 100


@pytest.mark.parametrize("load", [0.5, 0.8, 1.0, 1.1, 1.35, 1.48])
def test_budget_under_a_steady_load_is_what_the_service_has_at_least(load: float) -> None:
    """The service's own limit, image by image, one worker and arrivals at random."""
    random, objective_s = Random(0), _BUDGETS.objective_s
    steps = [WHOLE, Step(0.8, -1.0), Step(0.6, -2.0)]
    takes_s = {step: 1 / rate for step, rate in zip(steps, _BUDGETS.rates, strict=True)}
    cost = InferenceCost()
    for step, seconds in takes_s.items():
        cost.note(round(1000 * step.share), seconds, 0.0)
    now_s, free_s, chosen = 0.0, 0.0, list[Step]()
    limit = BudgetLimit(steps, 1000, cost, Objective(objective_s), lambda: now_s)
    job_s = cost.seconds(cost.recent_macs)
    arrivals = list(accumulate(random.expovariate(load * _BUDGETS.rates[0]) for _ in range(5000)))
    noted = 0
    for at, came_s in enumerate(arrivals):
        begins_s = max(free_s, came_s)
        waiting = bisect_right(arrivals, begins_s)
        for arrived_s in arrivals[noted:waiting]:
            now_s = arrived_s
            limit.note_arrival()
        now_s, noted = begins_s, waiting
        chosen.append(limit.choose(1, waiting - at - 1, 1, job_s, refuses=False))
        free_s = begins_s + takes_s[chosen[-1]]
    second = Fleet(_BUDGETS, 1).serve(load * _BUDGETS.rates[0], 0)
    assert second.refused == 0
    ours = next(rate for rate in _BUDGETS.rates if rate >= second.answered)
    mean_rate = harmonic_mean([1 / takes_s[step] for step in chosen])
    assert 0.98 * max(load, 1.0) * _BUDGETS.rates[0] < mean_rate < 1.07 * ours
