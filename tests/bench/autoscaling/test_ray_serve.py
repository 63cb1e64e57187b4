"""The examples of Ray Serve's documentation, and what it says of delays and factors."""

from __future__ import annotations

import pytest

from bench.autoscaling.fleet import Second
from bench.autoscaling.ray_serve import RayServe, scaled


def _replicas(ray: RayServe, ongoing: list[float], start: int) -> list[int]:
    replicas = [start]
    for now_s, requests in enumerate(ongoing):
        second = Second(now_s, 0, 0, 0, 0, 1, requests, replicas[-1], replicas[-1])
        replicas.append(ray.decide(second))
    return replicas


def test_thirty_requests_a_second_of_100_ms_need_three_replicas_of_one_request_each() -> None:
    ray = RayServe(1, 10, target_ongoing_requests=1)
    assert _replicas(ray, [30 * 0.1] * 60, start=2)[-1] == 3


def test_more_replicas_come_only_after_30_seconds_of_too_many_requests() -> None:
    replicas = _replicas(RayServe(1, 100), [40.0] * 60, start=2)
    assert next(at for at, count in enumerate(replicas) if count > 2) == 10 + 30  # the first report, and the delay
    assert replicas[40] == 20


def test_fewer_replicas_come_only_after_600_seconds_of_too_few_requests() -> None:
    replicas = _replicas(RayServe(1, 100), [10.0] * 700, start=20)
    assert next(at for at, count in enumerate(replicas) if count < 20) == 10 + 600
    assert replicas[-1] == 5


def test_decision_the_other_way_begins_the_delay_anew() -> None:
    ray = RayServe(1, 100)
    assert [ray.delayed(5, 2, now_s) for now_s in range(29)] == [2] * 29
    assert ray.delayed(1, 2, 29) == 2
    assert [ray.delayed(5, 2, now_s) for now_s in range(30, 61)] == [2] * 30 + [5]


@pytest.mark.parametrize(
    ("desired", "current", "up", "down", "expected"),
    [
        (20, 10, 1.0, 1.0, 20),
        (20, 10, 0.5, 1.0, 15),
        (20, 10, 1.5, 1.0, 25),
        (4, 10, 1.0, 0.5, 7),
        (9, 10, 1.0, 0.2, 9),  # 9.8 rounds up to 10, and would never go down
        (10, 10, 0.5, 0.5, 10),
    ],
)
def test_factors_amplify_or_moderate_the_step(
    desired: float, current: int, up: float, down: float, expected: int
) -> None:
    assert scaled(desired, current, up, down) == expected
