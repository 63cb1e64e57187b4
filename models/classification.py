"""How good answers are: ranks, confusions, precision and recall by class, and how far confidence can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from artifact.cascade import log_probabilities

_BINS = 15  # of Guo et al. (2017), section 5
_LEAST, _MOST = 0.01, 100.0  # temperatures that are looked at


class Guesses(NamedTuple):
    """What logits say of N images.

    Attributes:
        predicted: (N,) the most probable class.
        ranks: (N,) how many classes come before the true one: 0 where the prediction is right.
        confidences: (N,) probability of the predicted class.
    """

    predicted: np.ndarray
    ranks: np.ndarray
    confidences: np.ndarray


def guesses(logits: np.ndarray, classes: np.ndarray) -> Guesses:
    """What logits (N, C) say, beside the true classes (N,)."""
    rows = np.arange(len(logits))
    true = logits[rows, classes][:, None]
    before = np.arange(logits.shape[1]) < classes[:, None]  # of equal logits the first counts, as in argmax
    ranks = (logits > true).sum(axis=1) + ((logits == true) & before).sum(axis=1)
    return Guesses(logits.argmax(axis=1), ranks, np.exp(log_probabilities(logits).max(axis=1)))


def confusion_matrix(classes: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """(count, count) images by true class (rows) and predicted class (columns)."""
    return np.bincount(classes * count + predicted, minlength=count * count).reshape(count, count)


class ByClass(NamedTuple):
    """Of each class: (C,) each, NaN where there is nothing to divide by.

    Attributes:
        precision: share of the images predicted to be of the class that are.
        recall: share of the images of the class that are predicted to be.
        f1: harmonic mean of the two.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def by_class(confusions: np.ndarray) -> ByClass:
    """From a confusion matrix."""
    hits, predicted, true = np.diag(confusions), confusions.sum(axis=0), confusions.sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 of 0 is NaN, as it should be
        return ByClass(hits / predicted, hits / true, 2 * hits / (predicted + true))


def most_confused(confusions: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """True class, predicted class and number of images of the most frequent confusions, at most so many."""
    wrong = confusions.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = (np.unravel_index(place, wrong.shape) for place in order)
    return [(int(row), int(column), int(wrong[row, column])) for row, column in places if wrong[row, column]]


def calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: how far confidence is from accuracy, mean over the images.

    Guo et al. (2017), equation 3, with 15 bins of equal width.
    """
    bins = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, confidences - correct, minlength=_BINS)  # summed: the images of a bin weigh as they should
    return float(np.abs(gaps).sum() / len(confidences))


def fit_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """The temperature that divides logits (N, C) to the least cross-entropy (Guo et al. 2017, section 4.2).

    Raises:
        ValueError: there is none, as all answers are right or no better than chance.
    """
    logits = logits.astype(np.float64)
    true = logits[np.arange(len(logits)), classes]

    def slope(temperature: float) -> float:
        """Derivative of the mean cross-entropy, which is convex in 1/temperature, by that."""
        shares = np.exp(logits / temperature - (logits / temperature).max(axis=1, keepdims=True))
        expected = (shares * logits).sum(axis=1) / shares.sum(axis=1)
        return float((expected - true).mean())

    low, high = _LEAST, _MOST
    if slope(low) <= 0 or slope(high) >= 0:
        raise ValueError("no temperature suits these answers: all are right, or they are no better than chance")
    while high / low > 1 + 1e-6:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low * high) ** 0.5
