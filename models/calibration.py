"""Probabilities that can be believed: a temperature is fitted, and the classifier's weights are divided by it.

A network is usually surer than it is often right. Dividing its logits by one number mends most of that and changes no
prediction (Guo et al. 2017, section 4.2). As the logits are a linear function of the classifier's weights, dividing
these once does the same in every runtime.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from models.checkpoint import Checkpoint, CheckpointError
from models.classification import calibration_error, fit_temperature, guesses
from models.config import CascadeConfig

FEWEST_IMAGES = 200
"""With fewer, a temperature says little of other images."""

_CLASSIFIER = ("classifier.weight", "classifier.bias")


class Calibration(NamedTuple):
    """A temperature, and the expected calibration error before and after dividing by one.

    Attributes:
        temperature: fitted to all images.
        before: error of the logits as they are.
        after: error where each half of the images has the temperature of the other half, so that none is fitted to
            what it is judged on.
    """

    temperature: float
    before: float
    after: float


def fit(logits: np.ndarray, classes: np.ndarray) -> Calibration:
    """Fit a temperature to logits (N, C) with the true classes (N,).

    Raises:
        ValueError: they are of too few images, or no temperature suits them.
    """
    if len(logits) < FEWEST_IMAGES:
        raise ValueError(f"{len(logits)} images are too few to calibrate on: {FEWEST_IMAGES} are needed")
    halves = np.arange(len(logits)) % 2
    divided = logits.copy()
    for half in (0, 1):
        divided[halves == half] /= fit_temperature(logits[halves != half], classes[halves != half])
    before, after = (guesses(each, classes) for each in (logits, divided))
    return Calibration(
        fit_temperature(logits, classes),
        calibration_error(before.confidences, before.ranks == 0),
        calibration_error(after.confidences, after.ranks == 0),
    )


def calibrated(checkpoint: Checkpoint, temperature: float) -> Checkpoint:
    """The network with its logits divided by a temperature.

    Raises:
        CheckpointError: it is a cascade, whose networks have a classifier each.
    """
    if isinstance(checkpoint.config, CascadeConfig):
        raise CheckpointError("a cascade is not calibrated: calibrate its networks, and combine them again")
    scaled: dict[str, Tensor] = {name: checkpoint.weights[name] / temperature for name in _CLASSIFIER}
    training = {name: told for name, told in checkpoint.training.items() if name in ("held_out", "origin", "recipe")}
    training["temperature"] = temperature * checkpoint.training.get("temperature", 1.0)
    return replace(checkpoint, weights=checkpoint.weights | scaled, training=training, optimizer={})
