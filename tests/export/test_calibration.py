from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from artifact.preprocessing import Float32Array
from export.calibration import IMAGES, STEM, Quantisation, calibrate, output_name, residual_name, shortcut_name
from export.inference import GatedBlock, InferenceNetwork
from models.resnet import AdaptiveResNet
from tests.networks import inputs, small_network


def _calibrated(network: AdaptiveResNet, images: Float32Array, gate_threshold: float = 0.0) -> dict[str, Quantisation]:
    return calibrate(InferenceNetwork(network, gate_threshold), list(network.blocks), images)


def _highest(quantisation: Quantisation) -> float:
    return quantisation.scale * (255 - quantisation.zero_point)


def test_every_tensor_of_the_graph_is_calibrated(network: AdaptiveResNet) -> None:
    blocks = list(network.blocks)
    names = [IMAGES, STEM, *map(output_name, blocks)]
    names += [residual_name(block, number) for block in blocks for number in (0, 1)]
    names += [shortcut_name(block) for block in ("stage2_block1", "stage3_block1")]
    assert sorted(_calibrated(network, inputs(network, 60))) == sorted(names)


def test_blocks_between_projections_share_what_keeps_their_output(network: AdaptiveResNet) -> None:
    found = _calibrated(network, inputs(network, 60))
    first, second = found[STEM], found[output_name("stage2_block1")]
    assert found[output_name("stage1_block1")] == found[output_name("stage1_block2")] == first
    assert found[output_name("stage2_block2")] == second
    assert len({first, second, found[output_name("stage3_block1")]}) == 3


def test_tensors_after_a_relu_have_the_zero_point_0_and_others_hold_both_signs(network: AdaptiveResNet) -> None:
    found = _calibrated(network, inputs(network, 60))
    for name, quantisation in found.items():
        has_signs = name == IMAGES or name.endswith(("/residual/1", "/shortcut"))
        assert (0 < quantisation.zero_point < 255) is has_signs, name


def test_nearly_all_values_lie_in_the_range(network: AdaptiveResNet) -> None:
    images = inputs(network, 50)
    quantisation = _calibrated(network, images)[IMAGES]
    low = -quantisation.scale * quantisation.zero_point
    outside = (images < low - quantisation.scale) | (images > _highest(quantisation) + quantisation.scale)
    assert outside.mean() <= 2e-4


def test_block_is_measured_on_the_images_that_execute_it(network: AdaptiveResNet) -> None:
    images = inputs(network, 50)
    serving = InferenceNetwork(network)
    with torch.inference_mode():
        x = serving.blocks[0](serving.stem(torch.from_numpy(images)), torch.zeros(1), [])
        block = serving.blocks[1]
        assert isinstance(block, GatedBlock)
        is_open = block.gate(x) > 0
        hidden = F.relu(next(block.residual.children())(x))
    assert 5 < int(is_open.sum()) < 45
    expected, of_all = (float(np.quantile(values, 0.9999)) for values in (hidden[is_open], hidden))
    assert abs(expected - of_all) > 1e-3
    found = _calibrated(network, images)[residual_name("stage1_block2", 0)]
    assert _highest(found) == pytest.approx(expected, rel=1e-5)


def test_block_that_no_image_executes_is_measured_on_all_of_them() -> None:
    network = small_network(target_rates=(1.0, 1.0, 1.0, 1.0, 0.5))
    images = inputs(network, 50)
    closed, opened = _calibrated(network, images, 1e4), _calibrated(network, images, -1e4)
    block = list(network.blocks)[-1]
    assert closed[residual_name(block, 0)] == opened[residual_name(block, 0)]
    assert closed[output_name(block)] != opened[output_name(block)]


def test_batches_count_by_their_images(network: AdaptiveResNet) -> None:
    images = inputs(network, 50)
    bright = np.full((1, *images.shape[1:]), 100, np.float32)
    alone, together = (_calibrated(network, batch)[IMAGES] for batch in (images, np.concatenate([images, bright])))
    assert _highest(together) == pytest.approx((50 * _highest(alone) + 100) / 51, rel=1e-2)


def test_tensor_of_zeros_has_a_scale() -> None:
    network = small_network()
    with torch.no_grad():
        for parameter in network.stem.parameters():
            parameter.zero_()
    found = _calibrated(network, inputs(network, 4))
    assert all(0 < quantisation.scale < np.inf for quantisation in found.values())
