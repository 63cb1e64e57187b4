"""The random networks: their gates open as asked, and every library computes the same."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from bench.gpu.networks import (
    mac_ratio,
    offset_for,
    opened_gates,
    phased_images,
    random_network,
    ungated_macs,
)
from bench.gpu.rivals import torch_network
from bench.gpu.ungated_graph import ungated_model
from models.config import PRESETS
from service.engine.runtimes.cuda.network import Network
from tests.networks import small_config

_WIDE = {"stage_widths": (16, 32, 64), "target_rates": (0.5,) * 5}


def _margins(network: Network, count: int) -> np.ndarray:
    """Of the gates for so many phases, as a kernel computes them from the mean of the first channel."""
    phases = phased_images(count, 1)[:, 0, 0, 0]
    gates = [block.gate for block in network.blocks if block.gate]
    columns = []
    for gate in gates:
        hidden = np.maximum(phases[:, None] * gate.hidden_weight[:3, 0] + gate.hidden_bias[:3], 0)
        columns.append(hidden @ gate.margin_weight[:3] + gate.margin_bias[0])
        assert not gate.margin_weight[3:].any()
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("share", [1.0, 0.8, 0.6, 0.4])
@pytest.mark.parametrize("name", ["convnet-aig-50-imagenet", "convnet-aig-110-cifar10"])
def test_one_offset_opens_that_share_of_the_gates_other_ones_for_other_images(name: str, share: float) -> None:
    network = random_network(PRESETS[name], 4)
    opened = opened_gates(_margins(network, 64), share)
    assert opened.mean() == pytest.approx(share, abs=0.02)
    assert opened.mean(axis=1) == pytest.approx(share, abs=0.1)
    assert opened.mean(axis=0) == pytest.approx(share, abs=0.1)
    assert (len(np.unique(opened, axis=0)) == 1) == (share == 1)
    assert offset_for(share) == (1 if share == 1 else share - 1)


def test_macs_are_those_that_a_network_of_the_preset_counts() -> None:
    for name in ("convnet-aig-50-imagenet", "convnet-aig-110-cifar10"):
        network = random_network(PRESETS[name], 16)
        none = np.zeros((2, network.gates), bool)
        assert ungated_macs(network) == {"50": 4089184256, "11": 253149824}[name[12:14]]
        assert mac_ratio(network, ~none) == pytest.approx(1, abs=1e-3)
        assert mac_ratio(network, none) < 0.15


@pytest.mark.parametrize("changes", [_WIDE, _WIDE | {"stem": "imagenet", "block": "bottleneck"}])
def test_rivals_compute_the_same_network(changes: dict[str, object]) -> None:
    network, images = random_network(small_config(**changes), 4), phased_images(3, 16)
    run, given = torch_network(network, images, "cpu")
    with torch.no_grad():
        expected = run(given).numpy()
    model = ungated_model(network, 3, half=False).SerializeToString()
    (logits,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"images": images})
    assert np.isfinite(expected).all()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_file_in_half_precision_is_a_valid_model() -> None:
    network, images = random_network(small_config(**_WIDE), 4), phased_images(2, 16)
    model = ungated_model(network, 2, half=True).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.astype(np.float16)})
    run, given = torch_network(network, images, "cpu")
    np.testing.assert_allclose(logits, run(given).numpy(), atol=0.05)
