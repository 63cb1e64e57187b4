from __future__ import annotations

from typing import Any

import pytest

from bench.gpu.figures import aim, speed, told


def _speed(batch: int, seconds: dict[str, float], ungated: dict[str, float], network: str = "a-imagenet") -> Any:
    gated = [
        {"plan": plan, "asked": 0.6, "open": 0.6, "mac_ratio": 0.65, "finite": True, "in_line": taken, "alone": taken}
        for plan, taken in seconds.items()
    ]
    rivals = {name: {"in_line": taken, "alone": taken} for name, taken in ungated.items()}
    return {"network": network, "batch": batch, "gated": gated, "ungated": rivals, "left_out": {}}


def test_fastest_plan_is_judged_against_the_fastest_rival_of_all_parts() -> None:
    results = {
        "speed 50 layers batch 32": _speed(32, {"lists": 0.70, "images": 0.90}, {"cuDNN": 1.0}),
        "slow rivals 50 layers batch 32": _speed(32, {}, {"TensorRT": 0.9}),
    }
    text, missed = speed(results)
    assert missed == ["a-imagenet, 32 images, 60% open: efficiency 0.84 < 0.85"]  # 0.65 / (0.70 / 0.9)
    assert "a-imagenet *" in text
    assert ">= 0.85" in text
    del results["slow rivals 50 layers batch 32"]
    assert speed(results)[1] == []


def test_without_a_rival_nothing_is_judged() -> None:
    text, missed = speed({"speed x": _speed(32, {"lists": 0.7}, {})})
    assert missed == []
    assert "0.650" in text


@pytest.mark.parametrize(("batch", "least"), [(1, 1 / 1.1), (8, None), (32, 0.85), (128, 0.85)])
def test_aims_are_those_of_the_batch(batch: int, least: float | None) -> None:
    assert aim("convnet-aig-50-imagenet", batch) == least
    assert aim("convnet-aig-110-cifar10", 128) == 0.8


def test_everything_that_was_measured_is_told_with_what_is_wrong() -> None:
    right = {
        "problem": None,
        "images": 200,
        "equal_gates": 1.0,
        "equal_predictions": 1.0,
        "margin_difference": 1e-6,
    }
    load = {"images_per_s": 900.0, "p99": 20.0, "counts": {"200": 9}, "busy": 0.5, "busy_problem": None}
    text, missed = told(
        {
            "machine": {
                "devices": ["a GPU"],
                "versions": {"triton": "1", "torch": None},
                "ceilings": {"copy_gb_s": 4.0},
            },
            "correctness fp16": {"plans": {"lists": {"problem": "it fails", "random images": right}}},
            "served 38 layers": {"model": "m", "1 clients": {**load, "busy": None}, "64 clients": load},
            "served 50 layers": {"left_out": "it is not there"},
            "sanitizer racecheck lists": {"errors": 0},
            "sanitizer memcheck lists": {"left_out": "it is not installed"},
        },
        {"speed 50 layers batch 1": "not begun: 3 s were left"},
    )
    for part in ("a GPU", "copy_gb_s: 4", "100.000%", "it fails", ">= 80%", "it is not there", "not begun: 3 s"):
        assert part in text
    assert missed == [
        "correctness fp16: lists, proof: it fails",
        "served 38 layers, 64 clients: the GPU is busy 50% < 80%",
    ]
