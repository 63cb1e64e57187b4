from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import PRESETS, preset
from models.resnet import AdaptiveResNet
from tests.models.conftest import MakeConfig, MakeNetwork


def _weighted_layers(network: AdaptiveResNet) -> int:
    """Layers with weights on the longest way through the network, which is what its depth counts."""
    residual = [layer for name, layer in network.named_modules() if name.startswith("stem") or ".residual" in name]
    return sum(isinstance(layer, nn.Conv2d) for layer in residual) + 1


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_as_many_layers_as_its_name_says(name: str) -> None:
    with torch.device("meta"):
        network = AdaptiveResNet(preset(name))
    assert _weighted_layers(network) == int(name.split("-")[2])


def test_output_has_logits_margins_and_decisions_of_every_gate(network: AdaptiveResNet, images: Tensor) -> None:
    output = network(images)
    assert output.logits.shape == (32, 2)
    assert output.margins.shape == output.open.shape == (32, 3)
    assert torch.equal(output.open, (output.margins > 0).float())


def test_output_is_that_of_stem_blocks_pool_and_classifier(network: AdaptiveResNet, images: Tensor) -> None:
    x = network.stem(images)
    for column, block in enumerate(network.blocks.values()):
        decision = block.gate(x)
        assert torch.equal(network(images).margins[:, column], decision.margin)
        x = F.relu(block.shortcut(x) + decision.open[:, None, None, None] * block.residual(x))
    torch.testing.assert_close(network(images).logits, network.classifier(x.mean(dim=(2, 3))))


def test_paths_differ_between_images(network: AdaptiveResNet, images: Tensor) -> None:
    assert len(network(images).open.unique(dim=0)) > 2


def test_same_image_takes_the_same_path_every_time_and_in_any_company(network: AdaptiveResNet, images: Tensor) -> None:
    together = network(images)
    assert torch.equal(network(images).logits, together.logits)
    alone = [network(image[None]) for image in images]
    assert torch.equal(torch.cat([output.open for output in alone]), together.open)
    torch.testing.assert_close(torch.cat([output.logits for output in alone]), together.logits)


def test_training_draws_another_path_each_time(network: AdaptiveResNet, images: Tensor) -> None:
    network.train()
    assert not torch.equal(network(images).open, network(images).open)


def test_gate_offset_opens_and_closes_every_gate(network: AdaptiveResNet, images: Tensor) -> None:
    assert network(images, 1e9).open.min() == 1
    assert network(images, -1e9).open.max() == 0


def test_each_image_may_have_its_own_gate_offset(network: AdaptiveResNet, images: Tensor) -> None:
    offsets = torch.tensor([1e9, -1e9]).repeat(16)
    output = network(images, offsets)
    assert torch.equal(output.open, (offsets > 0).float()[:, None].expand(-1, 3))
    torch.testing.assert_close(output.logits[::2], network(images, 1e9).logits[::2])


def test_block_with_target_rate_1_has_no_gate(make_network: MakeNetwork, images: Tensor) -> None:
    network = make_network(target_rates=(1.0, 0.5, 1.0))
    assert network.gated_blocks == ["stage2_block1"]
    assert network.blocks["stage1_block1"].gate is None
    assert network(images).margins.shape == (32, 1)


def test_plain_network_has_no_gates(make_network: MakeNetwork, images: Tensor) -> None:
    network = make_network(target_rates=(1.0, 1.0, 1.0))
    output = network(images, -1e9)
    assert network.gated_blocks == []
    assert output.margins.shape == output.open.shape == (32, 0)
    assert not [name for name in network.state_dict() if "gate" in name]
    torch.testing.assert_close(output.logits, network(images).logits)


def test_open_gates_make_the_plain_network(make_config: MakeConfig, network: AdaptiveResNet, images: Tensor) -> None:
    plain = AdaptiveResNet(make_config().without_gates())
    plain.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if ".gate." not in name})
    torch.testing.assert_close(plain.eval()(images).logits, network(images, 1e9).logits)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_each_stage_after_the_first_halves_the_map(make_config: MakeConfig, block: str) -> None:
    network = AdaptiveResNet(make_config(block=block, stage_blocks=(2, 2, 2), target_rates=(0.5,) * 6)).eval()
    x = network.stem(torch.randn(1, 3, 16, 16))
    sides = []
    for residual_block in network.blocks.values():
        x, _ = residual_block(x)
        sides.append(x.shape[-1])
    assert sides == [16, 16, 8, 8, 4, 4]


def test_imagenet_stem_divides_the_sides_by_four(make_config: MakeConfig) -> None:
    network = AdaptiveResNet(make_config(stem="imagenet"))
    assert network.stem(torch.randn(2, 3, 64, 64)).shape == (2, 4, 16, 16)


def test_blocks_are_named_by_stage_and_position(make_config: MakeConfig) -> None:
    network = AdaptiveResNet(make_config(stage_blocks=(2, 1, 1), target_rates=(0.5,) * 4))
    assert list(network.blocks) == ["stage1_block1", "stage1_block2", "stage2_block1", "stage3_block1"]
