from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from artifact.agreement import LOGIT_TOLERANCE, MARGIN_TOLERANCE, Agreement, LogitsAndMargins
from artifact.preprocessing import Float32Array
from tests.gatings import gating_of_gates

# Two images, three classes, two gates; every gate is far from a threshold of 0.
LOGITS = [[1.0, 2.0, 0.5], [0.1, 0.2, 0.9]]
MARGINS = [[0.5, -0.8], [-0.5, 0.7]]


def _array(values: npt.ArrayLike) -> Float32Array:
    return np.array(values, np.float32)


def _answers(logits: npt.ArrayLike = LOGITS, margins: npt.ArrayLike = MARGINS) -> LogitsAndMargins:
    return _array(logits), _array(margins)


def _compared(
    actual: LogitsAndMargins,
    expected: LogitsAndMargins | None = None,
    offsets: npt.ArrayLike = (0.0, 0.0),
    gate_threshold: float = 0.0,
) -> Agreement:
    agreement = Agreement()
    agreement.compare(
        "a run",
        expected or _answers(),
        actual,
        _array(offsets),
        gating_of_gates((expected or _answers())[1].shape[1], gate_threshold),
    )
    return agreement


def test_equal_answers_agree_in_everything() -> None:
    agreement = _compared(_answers())
    assert agreement == Agreement(images=2, same_path=2, same_prediction=2, gates=4)
    assert (agreement.equal_gates, agreement.equal_predictions) == (1, 1)


def test_nothing_compared_agrees() -> None:
    assert (Agreement().equal_gates, Agreement().equal_predictions) == (1, 1)


def test_network_without_gates_is_compared_by_its_logits() -> None:
    none = np.empty((2, 0), np.float32)
    agreement = _compared((_array(LOGITS), none), (_array(LOGITS), none))
    assert agreement == Agreement(images=2, same_path=2, same_prediction=2)
    assert agreement.equal_gates == 1
    assert _compared((_array(LOGITS) + 1, none), (_array(LOGITS), none)).problems


def test_gate_away_from_its_threshold_must_decide_alike() -> None:
    agreement = _compared(_answers(margins=[[0.5, 0.8], [-0.5, 0.7]]))
    assert agreement.problems[0] == "a run: 1 gates decide differently"
    assert (agreement.different_gates, agreement.same_path, agreement.equal_gates) == (1, 1, 0.75)


def test_gate_near_its_threshold_may_fall_either_way() -> None:
    expected = _answers(margins=[[0.5, 0.4 * MARGIN_TOLERANCE], [-0.5, 0.7]])
    # The image took another path from there on, so its logits are not compared.
    actual = _answers([[7, 8, 9], LOGITS[1]], [[0.5, -0.4 * MARGIN_TOLERANCE], [-0.5, 0.7]])
    agreement = _compared(actual, expected)
    assert agreement.problems == []
    assert (agreement.gates, agreement.near_threshold, agreement.different_gates) == (3, 1, 1)
    assert (agreement.images, agreement.same_path, agreement.same_prediction) == (2, 1, 1)
    assert agreement.logit_difference == 0
    assert (agreement.equal_gates, agreement.equal_predictions) == (0.75, 0.5)


def test_gates_after_a_different_decision_are_not_compared() -> None:
    expected = _answers(margins=[[1e-4, -0.8], [-0.5, 0.7]])
    agreement = _compared(_answers(margins=[[-1e-4, 5.0], [-0.5, 0.7]]), expected)
    assert agreement.problems == []
    assert (agreement.gates, agreement.near_threshold, agreement.different_gates) == (2, 1, 1)
    assert agreement.margin_difference < MARGIN_TOLERANCE


@pytest.mark.parametrize("largest", [0.1, 1.0, 50.0])
def test_margins_may_differ_in_proportion_to_the_largest_of_their_gate(largest: float) -> None:
    # The second gate's margins are small, whatever the first one's are.
    expected = _answers(margins=[[largest, 0.5], [-0.5 * largest, 0.5]])
    scale = max(1.0, largest)
    for gate, allowed in ((0, MARGIN_TOLERANCE * scale), (1, MARGIN_TOLERANCE)):
        for share, fine in ((0.9, True), (1.1, False)):
            margins = expected[1].copy()
            margins[1, gate] += np.float32(share * allowed)
            agreement = _compared((expected[0], margins), expected)
            assert (agreement.problems == []) is fine
            assert agreement.margin_difference == pytest.approx(share * MARGIN_TOLERANCE, rel=0.01)


@pytest.mark.parametrize("largest", [0.9, 40.0])
def test_logits_may_differ_in_proportion_to_the_largest(largest: float) -> None:
    expected = _answers([[0.1, largest, 0.3], LOGITS[1]])
    for share, fine in ((0.9, True), (1.1, False)):
        logits = expected[0].copy()
        logits[1, 0] -= np.float32(share * LOGIT_TOLERANCE * max(1.0, largest))
        agreement = _compared((logits, expected[1]), expected)
        assert (agreement.problems == []) is fine
        assert agreement.logit_difference == pytest.approx(share * LOGIT_TOLERANCE, rel=0.01)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_a_problem_and_stays_one(wrong: float) -> None:
    logits, margins = _answers()
    logits[0, 1] = wrong
    agreement = _compared((logits, margins))
    assert "a logit differs" in agreement.problems[0]
    agreement.compare("a later run", _answers(), _answers(), np.zeros(2, np.float32), gating_of_gates(2))
    assert not np.isfinite(agreement.logit_difference)

    logits, margins = _answers()
    margins[:, 0] = wrong
    agreement = _compared((logits, margins))
    assert any("a margin differs" in problem for problem in agreement.problems)
    agreement.compare("a later run", _answers(), _answers(), np.zeros(2, np.float32), gating_of_gates(2))
    assert not np.isfinite(agreement.margin_difference)


def test_same_infinity_on_both_sides_is_refused() -> None:
    expected = _answers([[np.inf, 0, 0], LOGITS[1]])
    assert _compared(expected, expected).problems


@pytest.mark.parametrize(
    "actual",
    [
        (np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32)),
        (np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32)),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)),
        (np.zeros((2, 3), np.float32), np.zeros(2, np.float32)),
    ],
)
def test_other_shapes_are_a_problem(actual: LogitsAndMargins) -> None:
    agreement = _compared(actual)
    assert agreement.problems == [f"a run: shapes {actual[0].shape} and {actual[1].shape}"]
    assert agreement.images == 0


def test_decisions_are_those_with_offset_and_threshold() -> None:
    expected = _answers(margins=[[0.5002, -0.8], [-0.5, 0.7]])
    actual = _answers(margins=[[0.5006, -0.8], [-0.5, 0.7]])
    # With -0.3 they lie just above the threshold of 0.2, with 0.3 far above it.
    near = _compared(actual, expected, offsets=[-0.3, 0.0], gate_threshold=0.2)
    assert (near.problems, near.near_threshold, near.gates) == ([], 1, 3)
    far = _compared(actual, expected, offsets=[0.3, 0.0], gate_threshold=0.2)
    assert (far.problems, far.near_threshold, far.gates) == ([], 0, 4)


def test_threshold_decides_which_gates_differ() -> None:
    expected, actual = _answers(margins=[[0.5, -0.8]] * 2), _answers(margins=[[0.1, -0.8]] * 2)
    assert _compared(actual, expected, gate_threshold=0.0).different_gates == 0
    assert _compared(actual, expected, gate_threshold=0.3).different_gates == 2


def test_gates_that_are_not_reached_are_not_compared() -> None:
    gating = replace(gating_of_gates(2), within=np.array([-1, 0]))  # the second is in a network that the first decides
    expected = _answers(margins=[[-0.5, 0.0], [0.5, 0.7]])
    agreement = Agreement()
    agreement.compare("a run", expected, expected, _array([0.0, 0.0]), gating)
    assert agreement == Agreement(images=2, same_path=2, same_prediction=2, gates=3)


def test_several_batches_add_up() -> None:
    agreement = Agreement()
    zeros = np.zeros(2, np.float32)
    agreement.compare("first", _answers(), _answers(), zeros, gating_of_gates(2))
    moved = _answers(np.array(LOGITS) + 1e-4, np.array(MARGINS) - 2e-4)
    agreement.compare("second", _answers(), moved, zeros, gating_of_gates(2))
    agreement.compare("third", _answers(), _answers(margins=-np.array(MARGINS)), zeros, gating_of_gates(2))
    assert (agreement.images, agreement.same_path, agreement.same_prediction) == (6, 4, 6)
    assert (agreement.gates, agreement.different_gates) == (4 + 4 + 2, 2)
    assert agreement.logit_difference == pytest.approx(1e-4 / 2, rel=0.01)
    assert agreement.margin_difference == pytest.approx(1.0)
    assert {problem.split(":")[0] for problem in agreement.problems} == {"third"}


@pytest.mark.parametrize(("different", "refused"), [(3, False), (4, True)])
def test_a_few_different_decisions_of_few_say_nothing(different: int, refused: bool) -> None:
    logits, margins = np.tile(np.array([[1.0, 0.0]], np.float32), (60, 1)), np.ones((60, 1), np.float32)
    actual = margins.copy()
    actual[:different] = -1
    agreement = _compared((logits, actual), (logits, margins), np.zeros(60))
    assert (agreement.low_precision_problem() is not None) == refused
