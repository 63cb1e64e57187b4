from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.gpu.__main__ import main
from bench.gpu.estimate import Card, Work, estimate, launch_seconds, list_work
from bench.gpu.networks import random_network, ungated_macs
from models.config import PRESETS
from service.engine.runtimes.cuda.list_plan import ListPlan
from service.engine.runtimes.cuda.plan import Launch
from tests.networks import small_config

_CARD = Card()
_WIDE = {"stage_widths": (16, 32, 64), "target_rates": (0.5,) * 5}


def _launches(name: str, batch: int) -> tuple[list[Launch], int]:
    config = PRESETS[name]
    network = random_network(config, 4)
    plan = ListPlan(network, config.preprocessing, 0.0, "fp16", batch, _CARD.shared_bytes)
    return list(plan.launches(batch)), ungated_macs(network)


@pytest.mark.parametrize("name", ["convnet-aig-50-imagenet", "convnet-aig-110-cifar10"])
def test_work_is_that_of_the_plans_own_launches(name: str) -> None:
    launches, macs = _launches(name, 32)
    works = [list_work(launch, 32, 32) for launch in launches]
    for launch, work in zip(launches, works, strict=True):
        assert work.programs == launch.programs
    # Tiles that are not full, and the zeros in the window's steps, only add.
    assert 1 <= sum(work.flops for work in works) / (2 * 32 * macs) < 1.1


def test_closed_images_cost_nothing_but_the_launch() -> None:
    launches, _ = _launches("convnet-aig-50-imagenet", 8)
    listed = [launch for launch in launches if dict(launch.kernel.constants).get("LISTED")]
    assert len(listed) == 16 * 3
    for launch in listed:
        work = list_work(launch, 8, 0)
        assert (work.programs, work.flops, work.moved, work.distinct) == (0, 0, 0, 0)
        assert launch_seconds(work, _CARD) == _CARD.launch_s


def test_each_ceiling_bounds_a_launch() -> None:
    card = replace(_CARD, launch_s=0.0)
    many = 132 * 100
    assert launch_seconds(Work(many, card.flops, 0, 0), card) == pytest.approx(1)
    assert launch_seconds(Work(many, 0, card.cache_bytes_s, 0), card) == pytest.approx(1)
    assert launch_seconds(Work(many, 0, 0, card.memory_bytes_s), card) == pytest.approx(1)
    assert launch_seconds(Work(many, 0, 0, card.cache_bytes), card) == 0
    assert launch_seconds(Work(1, 0, card.processor_bytes_s, 0), card) == pytest.approx(1)
    assert launch_seconds(Work(133, 133.0, 0, 0), replace(card, flops=132.0)) == pytest.approx(2)


def test_rows_fall_with_the_share_of_open_gates() -> None:
    rows = estimate(small_config(**_WIDE), (1, 32), (1.0, 0.4, 0.0), _CARD)
    assert [(row["batch"], row["open"]) for row in rows] == [(b, s) for b in (1, 32) for s in (1.0, 0.4, 0.0)]
    for first in (0, 3):
        times = np.array([row["seconds_by_plan"]["lists"] for row in rows[first : first + 3]])
        ratios = np.array([row["mac_ratio"] for row in rows[first : first + 3]])
        assert (np.diff(times) <= 0).all()
        assert (np.diff(ratios) < 0).all()
    assert {"lists", "images"} == set(rows[0]["seconds_by_plan"])


@pytest.mark.slow
def test_command_says_that_it_is_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--estimate"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "Estimated, not run on a GPU."
    told = json.loads(last)
    assert told["estimate"]
    assert len(told["rows"]) == 2 * 4 * 4
