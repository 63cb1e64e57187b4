from __future__ import annotations

import math

import pytest

from service.engine.objective import Objective


def test_objective_of_the_operator_stays() -> None:
    objective = Objective(0.02)
    for _ in range(200):
        objective.note_unloaded(1.0)
    assert objective.seconds == 0.02


def test_nothing_is_late_before_enough_was_seen() -> None:
    objective = Objective(None)
    for _ in range(49):
        objective.note_unloaded(0.05)
    assert objective.seconds == math.inf
    objective.note_unloaded(0.05)
    assert objective.seconds == pytest.approx(0.15)


def test_objective_is_three_times_the_99th_percentile() -> None:
    objective = Objective(None)
    for number in range(1000):
        objective.note_unloaded((number % 100 + 1) / 100)
    assert objective.seconds == 3 * 0.99


def test_objective_follows_what_answers_take_now() -> None:
    objective = Objective(None)
    for seconds in (0.5, 0.05):
        for _ in range(1000):
            objective.note_unloaded(seconds)
    assert objective.seconds == pytest.approx(0.15)


def test_objective_is_not_below_what_anybody_notices() -> None:
    objective = Objective(None)
    for _ in range(100):
        objective.note_unloaded(0.0001)
    assert objective.seconds == 0.1


def test_objective_begins_with_a_guess() -> None:
    objective = Objective(None)
    objective.guess(0.1)
    assert objective.seconds == pytest.approx(0.306)


@pytest.mark.parametrize(
    ("set_s", "measured", "strict"), [(None, True, False), (0.02, False, True), (math.inf, False, False)]
)
def test_objective_is_strict_where_an_operator_has_set_it(set_s: float | None, measured: bool, strict: bool) -> None:
    objective = Objective(set_s)
    assert (objective.is_measured, objective.is_strict) == (measured, strict)
