from __future__ import annotations

import math

import numpy as np
import pytest

from models.answers import Images, answer
from models.classifier import TrainedClassifier
from models.report.perturbations import Perturbation
from models.report.response import Response, respond


def test_shares_are_counted_over_images_and_gates() -> None:
    response = Response(
        name="blurred",
        correct=np.array([True, True, False, False]),
        turned=np.array([False, True, True, True]),
        changed_gates=np.array([0, 0, 1, 5]),
        gates=5,
    )
    assert response.accuracy.value == 0.5
    assert response.turned_share.value == 0.75
    assert response.changed_gate_share.value == pytest.approx(6 / 20)
    assert response.same_path_share.value == 0.5


def test_without_gates_no_share_of_them_changes() -> None:
    none = np.zeros(3, bool)
    assert math.isnan(Response("blurred", none, none, np.zeros(3, int), 0).changed_gate_share.value)


def test_only_the_gate_that_looks_at_brightness_minds_it(hand_built: TrainedClassifier, grey: Images) -> None:
    evaluation = answer(hand_built, grey).evaluation
    assert evaluation.executed.mean(axis=0).tolist() == [0.5, 1, 0]
    inverted = Perturbation("inverted", lambda pixels, _: 255 - pixels)
    unchanged = Perturbation("unchanged", lambda pixels, _: pixels)
    positions = np.arange(0, 40, 2)
    upside_down, same = respond(hand_built, grey, evaluation, positions, (inverted, unchanged))
    # Dark images of 20 to 58 become 235 to 197, which is above 191.
    assert upside_down.changed_gates.tolist() == [1] * 20
    assert upside_down.same_path_share.value == 0
    assert same.changed_gates.tolist() == [0] * 20
    assert not same.turned.any()
    assert same.correct.tolist() == (evaluation.guesses.predicted == evaluation.classes)[positions].tolist()
