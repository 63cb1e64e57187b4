"""What replicas do in a second, and that their budget is the service's own."""

from __future__ import annotations

import pytest

from bench.autoscaling.fleet import Fleet, Replica
from service.engine.queueing.budget_limit import BudgetLimit, Pressure

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
    assert degraded == [85, 0, 0]


def test_more_wait_the_busier_the_workers_are() -> None:
    waiting = []
    for load in (50, 80, 95):
        second = Fleet(_PLAIN, 1).serve(load, 0)
        waiting.append(second.ongoing - _PLAIN.workers * second.busy)
    assert waiting == sorted(waiting)
    assert waiting[-1] <= _PLAIN.objective_s * 100


@pytest.mark.parametrize("load", [0.5, 1.1, 1.35, 1.48])
def test_budget_under_a_steady_load_is_that_of_the_service(load: float) -> None:
    """The service's own limit on a virtual clock, image by image, where none has to wait once it has fallen."""
    shares, rates = (1.0, 0.8, 0.6), dict(zip((1.0, 0.8, 0.6), _BUDGETS.rates, strict=True))
    now_s, waits_s, steps = 0.0, 0.0, list[float]()
    limit = BudgetLimit(shares, lambda: now_s)
    each_s = 1 / (load * _BUDGETS.rates[0])
    while now_s < 20:
        now_s += each_s
        limit.note_arrival(Pressure(waits_s, waits_s > 0.2, 0.2, 1, lambda share: 1 / rates[share]))
        waits_s = max(0.0, waits_s + 1 / rates[limit.share] - each_s)
        steps.append(limit.share)
    fleet = Fleet(_BUDGETS, 1)
    seconds = [fleet.serve(load * _BUDGETS.rates[0], at) for at in range(20)]
    late = steps[len(steps) // 2 :]
    ours = shares[_BUDGETS.rates.index(next(rate for rate in _BUDGETS.rates if rate >= seconds[-1].answered))]
    assert ours == min(late) == max(late)
