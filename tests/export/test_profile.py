from __future__ import annotations

import numpy as np
import pytest
import torch

from export.profile import FEWEST_IMAGES, measure_profile
from tests.networks import inputs, small_network


@pytest.mark.parametrize("gate_threshold", [0.0, 0.5])
def test_profile_is_how_often_the_network_opens_each_gate(gate_threshold: float) -> None:
    network = small_network()
    images = inputs(network, 150)
    profile = measure_profile(network, np.split(images, [7, 80]), gate_threshold)
    assert profile is not None
    assert profile.images == 150
    with torch.inference_mode():
        opened = network(torch.from_numpy(images), -gate_threshold).open.mean(dim=0)
    assert len(opened.unique()) == 4
    assert profile.rates == pytest.approx([1.0, *opened.tolist()])


def test_network_without_gates_runs_every_block() -> None:
    network = small_network(target_rates=(1.0,) * 5)
    profile = measure_profile(network, [inputs(network, FEWEST_IMAGES)])
    assert profile is not None
    assert profile.rates == (1.0,) * 5


def test_too_few_images_are_no_profile() -> None:
    network = small_network()
    images = inputs(network, FEWEST_IMAGES)
    assert measure_profile(network, [images[1:]]) is None
    assert measure_profile(network, []) is None
    assert measure_profile(network, [images]) is not None
