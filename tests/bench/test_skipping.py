from __future__ import annotations

import numpy as np
import pytest

from bench.skipping import Point, Target, problems

_TARGET = Target("a network", efficiency=0.9, time_all_open=1.1, rounds=3)


def _point(runtime: str, open_share: float, mac_ratio: float, time_ratio: float, rival: float = 1.0) -> Point:
    return Point(runtime, open_share, mac_ratio, time_ratio * np.array([0.9, 1.0, 1.2]), rival)


def test_efficiency_is_one_where_all_that_is_skipped_saves_time() -> None:
    low, middle, high = _point("blocked", 0.5, 0.6, 0.6).efficiency
    assert middle == pytest.approx(1)
    assert 1 / 1.2 < low < middle < high < 1 / 0.9


def test_class_efficiency_is_against_the_fastest_rival_of_the_precision() -> None:
    assert _point("int8", 0.5, 0.6, 0.3, rival=0.4).class_efficiency == pytest.approx(0.6 / (0.3 / 0.4))
    assert np.isnan(_point("bf16", 0.5, 0.6, 0.3, rival=float("nan")).class_efficiency)


def test_runtime_on_target_misses_nothing() -> None:
    assert problems(_TARGET, [_point("blocked", 1.0, 1.0, 1.09), _point("blocked", 0.4, 0.45, 0.49)]) == []


def test_only_the_judged_runtime_has_to_meet_the_targets() -> None:
    points = [_point("blocked", 1.0, 1.0, 1.2), _point("blocked", 0.4, 0.45, 0.6), _point("portable", 0.4, 0.45, 0.9)]
    assert problems(_TARGET, points) == [
        "efficiency 0.833 < 0.9 with 100% open",
        "1.200 > 1.1 times the ungated network, all gates open",
        "efficiency 0.750 < 0.9 with 40% open",
    ]
