from __future__ import annotations

import numpy as np
import pytest

from service.engine.inference_cost import InferenceCost


def test_nothing_is_known_before_anything_has_run() -> None:
    assert (InferenceCost().seconds(10**6), InferenceCost().decode_s) == (0.0, 0.0)


def test_time_is_a_line_through_what_was_seen() -> None:
    cost = InferenceCost()
    for macs in (10, 30, 20, 40, 25):
        cost.note(macs * 10**6, 0.001 + 0.0001 * macs, decode_s=0.0005)
    assert cost.seconds(15 * 10**6) == pytest.approx(0.0025)
    assert cost.seconds(0) == pytest.approx(0.001)
    assert cost.decode_s == pytest.approx(0.0005)


def test_time_is_in_proportion_while_all_images_cost_the_same() -> None:
    cost = InferenceCost()
    for _ in range(5):
        cost.note(20 * 10**6, 0.004, 0.0)
    assert cost.seconds(10 * 10**6) == pytest.approx(0.002)


def test_less_work_never_seems_to_take_longer() -> None:
    cost = InferenceCost()
    for macs, seconds in ((10, 0.009), (20, 0.005), (30, 0.001)):
        cost.note(macs * 10**6, seconds, 0.0)
    assert cost.seconds(10**6) == cost.seconds(50 * 10**6) == pytest.approx(0.005, rel=0.01)


def test_no_work_never_seems_to_take_less_than_no_time() -> None:
    cost = InferenceCost()
    for macs, seconds in ((10, 0.0001), (20, 0.01)):
        cost.note(macs * 10**6, seconds, 0.0)
    assert cost.seconds(0) >= 0


def test_what_takes_longer_than_before_is_learned() -> None:
    cost, random = InferenceCost(), np.random.default_rng(0)
    for factor in (1.0, 3.0):
        for macs in random.uniform(10, 40, 2000):
            cost.note(int(macs * 1e6), factor * 0.0001 * macs, 0.0)
    assert cost.seconds(20 * 10**6) == pytest.approx(3 * 0.002, rel=0.01)
