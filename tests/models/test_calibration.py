from __future__ import annotations

import numpy as np
import pytest
import torch

from models.calibration import FEWEST_IMAGES, calibrated, fit
from models.checkpoint import CheckpointError
from tests.cascades import cascade_checkpoint
from tests.networks import checkpoint_of, inputs, small_network


def _drawn(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 5), and classes that are drawn with the chances that they tell."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, 5)).astype(np.float32)
    noise = random.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(axis=1)


def test_error_falls_where_a_network_is_too_sure() -> None:
    logits, classes = _drawn(4000)
    found = fit(2 * logits, classes)
    assert found.temperature == pytest.approx(2, rel=0.1)
    assert found.after < 0.02 < 0.08 < found.before


def test_few_images_are_not_calibrated_on() -> None:
    logits, classes = _drawn(FEWEST_IMAGES)
    fit(logits, classes)
    with pytest.raises(ValueError, match="199 images are too few to calibrate on: 200 are needed"):
        fit(logits[1:], classes[1:])


def test_network_gives_its_logits_divided_and_nothing_else_changed() -> None:
    network = small_network()
    checkpoint = checkpoint_of(network)
    x = torch.from_numpy(inputs(network, 8))
    before = network(x)
    for number in (1, 2):
        checkpoint = calibrated(checkpoint, 2.5)
        after = checkpoint.network()(x)
        torch.testing.assert_close(after.logits, before.logits / 2.5**number)
        assert torch.equal(after.margins, before.margins)
        assert checkpoint.training == {"temperature": 2.5**number}


def test_cascade_is_not_calibrated() -> None:
    with pytest.raises(CheckpointError, match="calibrate its networks, and combine them again"):
        calibrated(cascade_checkpoint(), 2.0)
