from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.frontier.measurements import Point
from bench.frontier.networks import ALL_BUDGETS, Entry, finished, trainings
from bench.frontier.verdict import above_plain, mean_points
from bench.serving import Offer
from models.checkpoint import Checkpoint, save
from models.train import main as train
from models.trainer import CHECKPOINT_NAME
from tests.networks import small_network

PLAIN = Point("plain", "plain 14", 0, "", "fp32", 0.90, 25.0, 0.5)
POINTS = [
    PLAIN,
    replace(PLAIN, name="plain 20", macs=100.0, accuracy=0.92, time_ratio=1.0),
    Point("cascade", "14 then 20", 0, "20%", "fp32", 0.92, 50.0, 0.6),
    Point("cascade", "14 then 20", 0, "100%", "fp32", 0.93, 125.0, 1.5),
]


def test_network_is_above_the_line_through_the_plain_ones_at_its_own_cost() -> None:
    (by_macs,) = above_plain(POINTS, "14 then 20", lambda point: point.macs)
    assert (by_macs.at, by_macs.cost) == ("20%", 50.0)  # at 100% it costs more than any plain one
    assert by_macs.points == pytest.approx(1.0)
    (by_time,) = above_plain(POINTS, "14 then 20", lambda point: point.time_ratio)
    assert by_time.points == pytest.approx(100 * (0.92 - 0.905261), abs=0.001)


def test_line_does_not_fall_where_a_larger_plain_network_is_worse() -> None:
    worse = replace(PLAIN, name="plain 17", macs=50.0, accuracy=0.85)
    (found,) = above_plain([*POINTS, worse], "14 then 20", lambda point: point.macs)
    assert found.points == pytest.approx(2.0)


def test_network_that_was_not_timed_has_no_place_by_its_time() -> None:
    untimed = [replace(point, time_ratio=float("nan")) if point.kind == "cascade" else point for point in POINTS]
    assert above_plain(untimed, "14 then 20", lambda point: point.time_ratio) == []


def test_seeds_are_averaged_and_counted() -> None:
    seeds = [replace(PLAIN, seed=seed, accuracy=0.90 + seed / 100, time_ratio=1.0 - seed) for seed in (0, 1, 2)]
    first, second = mean_points([*seeds, replace(PLAIN, precision="int8")])
    assert (first.seed, first.precision, first.time_ratio) == (3, "fp32", 1.0)
    assert first.accuracy == pytest.approx(0.91)
    assert (second.seed, second.precision) == (1, "int8")


def test_every_network_sees_each_image_as_often(tmp_path: Path) -> None:
    runs = {training.name: training for training in trainings(60)}
    assert len(runs) == 7 + 6 + 8
    for training in runs.values():
        before = runs[training.init].epochs if training.init else 0
        assert training.epochs + before == (30 if "half" in training.name else 60)
        command = training.command(Path("data"), tmp_path)
        assert ("--plain" in command) == (not training.gated)
        assert ("--from" in command) == training.gated


def test_training_is_finished_with_its_last_step(tmp_path: Path) -> None:
    training = trainings(2)[0]
    assert not finished(training, tmp_path)
    network = small_network()
    (tmp_path / training.name).mkdir()
    for step, epochs, done in ((7, 1, False), (8, 1, False), (8, 2, True)):
        told = {"step": step, "steps_per_epoch": 4, "history": [{}] * epochs}
        save(tmp_path / training.name / CHECKPOINT_NAME, Checkpoint(network.config, network.state_dict(), told))
        assert finished(training, tmp_path) == done


def test_command_of_a_training_is_one_that_the_trainer_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for training in trainings(2):
        _, _, _, *arguments = training.command(tmp_path / "nowhere", tmp_path)
        assert train(arguments) == 1
        assert "nowhere" in capsys.readouterr().err


def test_network_for_all_budgets_is_served_at_each_that_it_can_keep(tmp_path: Path) -> None:
    offsets = {"as trained": 0.0, "60%": -0.5, "100%": 9.0}
    entry = Entry("gated", (38,), 0, tmp_path, offsets, ALL_BUDGETS)
    name = "gated 38 for all budgets"
    assert entry.offers == [Offer(name, "60%", tmp_path, 0.6), Offer(name, "100%", tmp_path, 1.0)]
    assert entry.offers[0].environment("int8")["AIG_DEFAULT_BUDGET"] == "0.6"
    assert replace(entry, trained_for="60%").offers == [Offer("gated 38 for 60%", "as trained", tmp_path)]
