from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.classification import (
    by_class,
    calibration_error,
    confusion_matrix,
    fit_temperature,
    guesses,
    most_confused,
)

CLASSES = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 1])


def test_rank_counts_the_classes_before_the_true_one() -> None:
    logits = np.array([[3, 2, 1], [3, 2, 1], [3, 2, 1], [1, 1, 1], [1, 1, 0]], np.float32)
    found = guesses(logits, np.array([0, 1, 2, 1, 0]))
    assert found.ranks.tolist() == [0, 1, 2, 1, 0]
    assert found.predicted.tolist() == [0, 0, 0, 0, 0]
    np.testing.assert_allclose(found.confidences, torch.softmax(torch.tensor(logits), 1).max(1).values, rtol=1e-6)


def test_rank_0_is_the_prediction_whatever_is_equal() -> None:
    random = np.random.default_rng(0)
    logits = random.integers(0, 3, (500, 5)).astype(np.float32)
    classes = random.integers(0, 5, 500)
    found = guesses(logits, classes)
    assert np.array_equal(found.ranks == 0, logits.argmax(axis=1) == classes)


def test_confusions_are_counted_by_true_and_predicted_class() -> None:
    confusions = confusion_matrix(CLASSES, PREDICTED, 4)
    assert confusions.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert most_confused(confusions, 2) == [(0, 1, 1), (1, 2, 1)]
    assert most_confused(np.diag([3, 4]), 2) == []


def test_precision_recall_and_f1_by_class() -> None:
    scores = by_class(confusion_matrix(CLASSES, PREDICTED, 4))
    np.testing.assert_allclose(scores.precision, [1, 1 / 3, 0, np.nan])
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(scores.f1, [0.8, 0.4, 0, np.nan])


def test_calibration_error_is_the_gap_of_each_bin_by_its_images() -> None:
    # Bins of a fifteenth: three images at 0.95, of which two are right; two at 0.5, both right; one at 1, wrong.
    confidences = np.array([0.95, 0.95, 0.95, 0.5, 0.5, 1.0])
    correct = np.array([True, True, False, True, True, False])
    expected = (abs(3 * 0.95 + 1 - 2) + abs(2 * 0.5 - 2)) / 6
    assert calibration_error(confidences, correct) == pytest.approx(expected)
    assert calibration_error(np.full(4, 0.75), np.array([True, True, True, False])) == pytest.approx(0)


def test_temperature_is_that_of_the_least_cross_entropy() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 1, (4000, 5)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = np.array([random.choice(5, p=each / each.sum()) for each in chances.astype(np.float64)])
    temperature = fit_temperature(3 * logits, classes)  # logits three times too sure
    assert temperature == pytest.approx(3, rel=0.1)

    def loss(divisor: float) -> float:
        return float(F.cross_entropy(torch.tensor(3 * logits) / divisor, torch.tensor(classes)))

    assert loss(temperature) <= min(loss(temperature * 1.01), loss(temperature / 1.01))
    assert fit_temperature(logits * 3 / temperature, classes) == pytest.approx(1, abs=1e-4)


def test_answers_that_no_temperature_suits_are_refused() -> None:
    logits = np.eye(3, dtype=np.float32)
    for classes in ([0, 1, 2], [1, 2, 0]):
        with pytest.raises(ValueError, match="no temperature suits these answers"):
            fit_temperature(logits, np.array(classes))
