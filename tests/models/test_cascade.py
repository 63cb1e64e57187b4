from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from artifact.agreement import Agreement, Run
from artifact.cascade import run_cascade
from export.parity import eager_runner
from models.checkpoint import load, save
from models.config import CascadeConfig, ModelConfig
from models.macs import count_macs
from models.structure import Structure, blocks_of
from tests.cascades import cascade, cascade_checkpoint
from tests.networks import inputs, small_config


def _in_turn() -> Run:
    """The networks of the cascade, each run by itself, as the service does it."""
    checkpoint, config = cascade_checkpoint(), cascade().config
    networks = [each.network() for each in checkpoint.networks()]
    gates = [Structure.of_config(network.config).gated.size for network in networks]
    return partial(run_cascade, [eager_runner(network) for network in networks], gates, config.sure_above, 0.0)


@pytest.mark.parametrize("offset", [0.0, 0.4, -0.4, 1e4, -1e4])
def test_all_networks_at_once_answer_as_they_do_in_turn(offset: float) -> None:
    network = cascade()
    images, offsets = inputs(network.networks[0], 60), np.full(60, offset, np.float32)
    agreement = Agreement()
    gating = Structure.of_config(network.config)
    agreement.compare("cascade", _in_turn()(images, offsets), eager_runner(network)(images, offsets), offsets, gating)
    assert agreement.problems == []
    assert agreement.same_path == 60


def test_each_network_is_asked_for_some_of_the_images_that_come_to_it() -> None:
    network = cascade()
    with torch.inference_mode():
        output = network(torch.from_numpy(inputs(network.networks[0], 60)))
    structure = Structure.of_config(network.config)
    executed = structure.executed(structure.opened(output.margins.numpy()))
    np.testing.assert_array_equal(executed[:, structure.gated], output.open.numpy())
    second, third = (executed[:, structure.block_names.index(name)].mean() for name in ("network2", "network3"))
    assert 0.9 > second > third > 0.05


def test_blocks_are_named_by_stages_that_go_on_through_the_networks() -> None:
    blocks = blocks_of(cascade(2).config)
    assert [(block.name, block.stage) for block in blocks[4:7]] == [
        ("stage3_block1", 3),
        ("network2", 4),
        ("stage4_block1", 4),
    ]
    assert {block.within for block in blocks[:6]} == {None}
    assert {block.within for block in blocks[6:]} == {"network2"}
    assert [block.kind for block in blocks].count("network") == 1


def test_macs_of_a_cascade_are_those_of_its_networks() -> None:
    config = cascade().config
    structure, macs = Structure.of_config(config), [count_macs(network) for network in config.networks]
    assert structure.total_macs == sum(each.total for each in macs)
    assert structure.ungated_macs == sum(each.ungated for each in macs)
    closed = structure.executed(np.zeros((1, structure.gated.size), bool))
    assert structure.spent_macs(closed).tolist() == [macs[0].total]


def test_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    checkpoint = cascade_checkpoint()
    save(tmp_path / "cascade.safetensors", checkpoint)
    again = load(tmp_path / "cascade.safetensors")
    assert again.config == checkpoint.config
    assert [each.config for each in again.networks()] == list(cascade().config.networks)
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in checkpoint.weights.items())


def _config(*networks: ModelConfig, sure_above: tuple[float, ...] = (1.0,)) -> CascadeConfig:
    return CascadeConfig(name="wrong", networks=networks, sure_above=sure_above)


def test_networks_that_do_not_fit_together_are_refused() -> None:
    network = small_config()
    with pytest.raises(ValidationError, match="other labels"):
        _config(network, small_config(labels=("ant", "bee")))
    with pytest.raises(ValidationError, match="2 limits for the 1 networks but the first"):
        _config(network, network, sure_above=(1.0, 2.0))
    with pytest.raises(ValidationError, match="at least 2"):
        _config(network, sure_above=())
    with pytest.raises(ValidationError, match="finite"):
        _config(network, network, sure_above=(float("nan"),))
