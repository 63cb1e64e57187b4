"""The worked examples of the Horizontal Pod Autoscaler's documentation."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.autoscaling.kubernetes import (
    Behavior,
    ScalingPolicy,
    ScalingRules,
    replicas_by_total,
    replicas_by_utilization,
)


@pytest.mark.parametrize(
    ("mean", "target", "current", "desired"),
    [
        (200, 100, 4, 8),  # "if the current metric value is 200m, and the desired value is 100m, [...] doubled"
        (50, 100, 4, 2),  # "If the current value is instead 50m, we'll halve"
        (90, 75, 50, 60),  # the blog's example of the tolerance: 50 x (90/75)
        (79, 75, 50, 50),  # within a tenth of the target nothing is done
        (68, 75, 50, 50),
    ],
)
def test_replicas_follow_the_ratio_of_the_metric_to_its_target(
    mean: float, target: float, current: int, desired: int
) -> None:
    assert replicas_by_utilization(mean, target, current, ready=current) == desired


def test_pods_that_are_not_ready_count_as_idle_when_there_would_be_more() -> None:
    # Ten ready at 100% of a target of 50% would need twenty; ten that start already make it fifteen.
    assert replicas_by_utilization(1.0, 0.5, current=15, ready=10) == 20
    # Where they are enough, nothing is added, and nothing is taken away by what only starts.
    assert replicas_by_utilization(1.0, 0.5, current=20, ready=10) == 20
    assert replicas_by_utilization(1.0, 0.5, current=30, ready=10) == 30


def test_pods_that_are_not_ready_are_set_aside_when_there_would_be_fewer() -> None:
    assert replicas_by_utilization(0.25, 0.5, current=12, ready=10) == 5


def test_total_of_an_external_metric_is_divided_by_its_average_value() -> None:
    # KEDA's fallback tells "target metric value * fallback replicas" to have that many replicas.
    assert replicas_by_total(6 * 100.0, 100.0, current=2) == 6
    assert replicas_by_total(6.5 * 100.0, 100.0, current=6) == 6
    assert replicas_by_total(6.7 * 100.0, 100.0, current=6) == 7


def test_eighty_replicas_go_down_by_a_tenth_and_below_forty_by_four() -> None:
    rules = ScalingRules((ScalingPolicy("Pods", 4, 60), ScalingPolicy("Percent", 10, 60)), stabilization_s=0)
    behavior = Behavior(fewest=1, most=100, down=rules)
    replicas = [80]
    for minute in range(15):
        replicas.append(behavior.apply(10, replicas[-1], 60.0 * minute))
    assert replicas[:3] == [80, 72, 64]  # 10% of 72 is 7.2, "but the number is rounded up to 8"
    assert all(before - after == 4 for before, after in pairwise(replicas) if 14 <= before < 40)
    assert replicas[-1] == 10


def test_policy_holds_for_its_period_however_often_one_looks() -> None:
    rules = ScalingRules((ScalingPolicy("Pods", 4, 60),), stabilization_s=0)
    behavior = Behavior(fewest=1, most=100, down=rules)
    replicas = [20]
    for sync in range(9):
        replicas.append(behavior.apply(1, replicas[-1], 15.0 * sync))
    assert replicas == [20, 16, 16, 16, 16, 12, 12, 12, 12, 8]


def test_by_default_replicas_double_or_grow_by_four_every_15_seconds() -> None:
    behavior = Behavior(fewest=1, most=100)
    replicas = [1]
    for sync in range(6):
        replicas.append(behavior.apply(1_000, replicas[-1], 15.0 * sync))
    assert replicas == [1, 5, 10, 20, 40, 80, 100]


def test_highest_recommendation_of_five_minutes_holds_on_the_way_down() -> None:
    behavior = Behavior(fewest=1, most=100)
    assert behavior.apply(10, 10, 0) == 10
    assert behavior.apply(6, 10, 15) == 10
    assert behavior.apply(3, 10, 299) == 10
    assert behavior.apply(3, 10, 300) == 6
    assert behavior.apply(3, 6, 315) == 3


def test_number_stays_within_its_bounds() -> None:
    behavior = Behavior(fewest=2, most=5)
    assert behavior.apply(9, 4, 0) == 5
    assert Behavior(fewest=2, most=5).apply(0, 4, 0) == 2
