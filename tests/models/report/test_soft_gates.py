from __future__ import annotations

import numpy as np
import torch

from models.answers import Images
from models.classifier import TrainedClassifier
from models.report.soft_gates import BY_PROBABILITY, BY_RATE, scaled_hits, scaled_logits
from tests.models.report.conftest import set_margin


def test_certain_gates_scale_as_they_decide(hand_built: TrainedClassifier, grey: Images) -> None:
    for gate, margin in zip(_gates(hand_built), (1e4, -1e4, 1e4), strict=True):
        set_margin(gate, margin)
    batch = hand_built.input(grey.pixels(np.arange(40)))
    with torch.inference_mode():
        torch.testing.assert_close(scaled_logits(hand_built.network, batch, 0.0), hand_built.network(batch).logits)


def test_block_is_scaled_by_the_sigmoid_of_its_margin(hand_built: TrainedClassifier, grey: Images) -> None:
    margins = torch.tensor([0.4, -0.7, 1.3])
    for gate, margin in zip(_gates(hand_built), margins.tolist(), strict=True):
        set_margin(gate, margin)
    batch = hand_built.input(grey.pixels(np.arange(40)))
    with torch.inference_mode():
        by_margin = scaled_logits(hand_built.network, batch, 0.5)
        by_rate = scaled_logits(hand_built.network, batch, 0.0, torch.sigmoid(margins + 0.5))
    torch.testing.assert_close(by_margin, by_rate)
    assert not torch.allclose(by_margin, scaled_logits(hand_built.network, batch, 0.0))


def test_rates_of_one_and_zero_run_all_and_none(random_classifier: TrainedClassifier, noise: Images) -> None:
    classes = noise.classes
    for rate, offset in ((1.0, 1e9), (0.0, -1e9)):
        logits, _ = random_classifier.run(noise.pixels(np.arange(60)), offset)
        hits = scaled_hits(random_classifier, random_classifier.network, noise, np.full(3, rate))
        assert hits[BY_RATE].tolist() == (logits.argmax(axis=1) == classes).tolist()
        assert hits[BY_PROBABILITY].shape == (60,)


def _gates(classifier: TrainedClassifier) -> list[torch.nn.Module]:
    return [classifier.network.blocks[name].gate for name in classifier.network.gated_blocks]
