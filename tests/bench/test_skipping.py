from __future__ import annotations

import numpy as np
import pytest

from bench.skipping import Point, Target, problems
from service.engine.runtimes.base import Precision

_TARGET = Target("a network", efficiency=0.8, time_all_open=1.1, rounds=3)


def _point(
    runtime: str,
    open_share: float,
    mac_ratio: float,
    time_ratio: float,
    rival: float = 1.0,
    precision: Precision = "fp32",
) -> Point:
    return Point(runtime, precision, open_share, mac_ratio, time_ratio * np.array([0.9, 1.0, 1.2]), rival)


def test_efficiency_is_one_where_all_that_is_skipped_saves_time() -> None:
    low, middle, high = _point("compiled fp32", 0.5, 0.6, 0.6).efficiency
    assert middle == pytest.approx(1)
    assert 1 / 1.2 < low < middle < high < 1 / 0.9


def test_class_efficiency_is_against_the_fastest_rival_of_the_precision() -> None:
    assert _point("int8", 0.5, 0.6, 0.3, rival=0.4).class_efficiency == pytest.approx(0.6 / (0.3 / 0.4))
    assert np.isnan(_point("bf16", 0.5, 0.6, 0.3, rival=float("nan")).class_efficiency)


def test_runtime_on_target_misses_nothing() -> None:
    assert problems(_TARGET, [_point("compiled fp32", 1.0, 1.0, 1.09), _point("compiled fp32", 0.4, 0.45, 0.49)]) == []


def test_only_the_judged_runtime_has_to_meet_the_targets() -> None:
    slower = [_point("portable", 1.0, 1.0, 2.0, 2.0), _point("portable", 0.4, 0.45, 0.9, 2.0)]
    points = [_point("compiled fp32", 1.0, 1.0, 1.3, 2.0), _point("compiled fp32", 0.4, 0.45, 0.6, 2.0), *slower]
    assert problems(_TARGET, points) == [
        "efficiency 0.769 < 0.8 with 100% open",
        "1.300 > 1.1 times the ungated network, all gates open",
        "efficiency 0.750 < 0.8 with 40% open",
    ]


def test_fastest_gated_runtime_of_a_precision_or_a_higher_one_has_to_beat_the_fastest_ungated_one() -> None:
    points = [
        _point("compiled fp32", 0.4, 0.4, 0.42),
        _point("int8", 0.4, 0.4, 0.3, rival=0.5, precision="int8"),
        _point("OpenVINO bf16", 0.4, 0.4, 0.45, rival=0.95, precision="bf16"),
        Point("ONNX Runtime ungated", "fp32", 1.0, 1.0, np.ones(3)),
    ]
    assert problems(_TARGET, points) == [
        "0.667 < 0.9 of what the MACs allow against the fastest ungated in int8, with 40% open (int8)"
    ]
