"""A short day, and that the page tells what the simulation gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.autoscaling.__main__ import START_S, outcome_of, row
from bench.autoscaling.load import Day
from bench.autoscaling.setups import DEGRADING, FIXED, HPA, KEDA, NO_GATES, RAY, RAY_LOW, SKIPPING, services
from bench.autoscaling.simulation import Outcome, replicas_for
from bench.report import markdown

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "scaling.md"
_DAY = Day(burst_at_s=1_200, burst_s=600, length_s=2_400)


def _outcome(service: str, autoscaler: str) -> Outcome:
    return outcome_of((START_S, service, autoscaler), _DAY, 0)


def test_same_seed_gives_the_same_day() -> None:
    assert np.array_equal(_DAY.arrivals(3), _DAY.arrivals(3))
    assert not np.array_equal(_DAY.arrivals(3), _DAY.arrivals(4))


def test_load_has_its_highest_second_in_the_burst() -> None:
    rates = Day().rates()
    assert rates.argmax() == Day().burst_at_s
    assert rates[Day().burst_at_s] == pytest.approx(3 * Day().rates(burst=False)[Day().burst_at_s])
    assert rates.sum() == pytest.approx(Day().arrivals(0).sum(), rel=1e-3)


@pytest.mark.parametrize("autoscaler", [HPA, KEDA])
def test_skipping_more_under_load_refuses_less_for_the_same_replicas(autoscaler: str) -> None:
    skipping, degrading = _outcome(SKIPPING, autoscaler), _outcome(DEGRADING, autoscaler)
    assert 0 < degrading.burst_refused < 0.7 * skipping.burst_refused
    assert degrading.replica_hours == pytest.approx(skipping.replica_hours, rel=0.1)
    assert degrading.degraded > 0 == skipping.degraded


@pytest.mark.parametrize("autoscaler", [FIXED, HPA, KEDA])
def test_skipping_costs_fewer_replicas(autoscaler: str) -> None:
    assert _outcome(SKIPPING, autoscaler).replica_hours < 0.8 * _outcome(NO_GATES, autoscaler).replica_hours


def test_autoscaler_has_enough_replicas_only_after_it_looked_and_they_are_ready() -> None:
    outcome = _outcome(SKIPPING, KEDA)
    assert outcome.full_after_s is not None
    assert outcome.full_after_s >= START_S + 15
    assert outcome.refusing_s <= outcome.full_after_s


def test_as_many_ongoing_requests_as_workers_mean_that_replicas_swing() -> None:
    day = Day(burst=1, length_s=5_400)
    late = [outcome_of((START_S, SKIPPING, ray), day, 0).capacity[3_000:] for ray in (RAY, RAY_LOW)]
    assert late[0].max() > 1.5 * late[0].min()
    assert late[1].max() < 1.3 * late[1].min()


def test_fixed_number_is_for_the_highest_second_without_the_burst() -> None:
    replica = services(START_S)[SKIPPING]
    assert replicas_for(700, replica, 0.7) == np.ceil(1_000 / replica.rates[0])


@pytest.mark.parametrize(("service", "autoscaler"), [(NO_GATES, RAY_LOW), (SKIPPING, HPA), (DEGRADING, KEDA)])
def test_page_has_what_the_simulation_gives(service: str, autoscaler: str) -> None:
    key = (START_S, service, autoscaler)
    line = markdown(row(key, outcome_of(key, Day(), 0))).splitlines()[0]
    assert line in _PAGE.read_text(encoding="utf-8")
