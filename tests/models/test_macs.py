from __future__ import annotations

import pytest

from artifact.preprocessing import Preprocessing
from models.config import preset
from models.macs import BlockMacs, count_macs
from tests.models.conftest import MakeConfig


def test_basic_network_counted_by_hand(make_config: MakeConfig) -> None:
    macs = count_macs(make_config(stage_blocks=(1, 1), stage_widths=(4, 8), target_rates=(0.5, 0.5)))
    assert macs.stem == 16 * 16 * 4 * (3 * 9)
    assert macs.blocks == {
        "stage1_block1": BlockMacs(residual=2 * 16 * 16 * 4 * (4 * 9), shortcut=0, gate=4 * 16 + 16 * 2),
        "stage2_block1": BlockMacs(
            residual=8 * 8 * 8 * (4 * 9) + 8 * 8 * 8 * (8 * 9), shortcut=8 * 8 * 8 * 4, gate=4 * 16 + 16 * 2
        ),
    }
    assert macs.classifier == 8 * 2


def test_bottleneck_network_counted_by_hand(make_config: MakeConfig) -> None:
    config = make_config(block="bottleneck", stage_blocks=(1, 1), stage_widths=(4, 8), target_rates=(1.0, 0.5))
    macs = count_macs(config)
    first, second = macs.blocks.values()
    # Without a change of size the first block still widens from 4 to 16 channels.
    assert first == BlockMacs(residual=16 * 16 * (4 * 4 + 4 * 4 * 9 + 4 * 16), shortcut=16 * 16 * 4 * 16, gate=0)
    # The 1x1 convolution before the strided 3x3 still works on the large map.
    assert second.residual == 16 * 16 * (16 * 8) + 8 * 8 * (8 * 8 * 9 + 8 * 32)
    assert second.shortcut == 8 * 8 * 16 * 32
    assert second.gate == 16 * 16 + 16 * 2


def test_imagenet_stem_counted_by_hand(make_config: MakeConfig) -> None:
    square = Preprocessing(resize=64, crop=64, mean=(0, 0, 0), std=(1, 1, 1))
    assert count_macs(make_config(stem="imagenet", preprocessing=square)).stem == 32 * 32 * 4 * (3 * 49)


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("convnet-aig-20-cifar10", 40_813_184),
        ("convnet-aig-18-imagenet", 1_814_073_344),
        ("convnet-aig-50-imagenet", 4_089_184_256),
    ],
)
def test_preset_without_gates_costs_what_the_literature_says(name: str, macs: int) -> None:
    counted = count_macs(preset(name).without_gates())
    assert counted.total == counted.ungated == macs
    assert count_macs(preset(name)).ungated == macs


def test_gates_cost_next_to_nothing() -> None:
    macs = count_macs(preset("convnet-aig-50-imagenet"))
    assert 0 < macs.total - macs.ungated < 1e-4 * macs.ungated


def test_total_is_the_sum_of_the_parts(make_config: MakeConfig) -> None:
    macs = count_macs(make_config())
    parts = [part for block in macs.blocks.values() for part in (block.residual, block.shortcut, block.gate)]
    assert macs.total == macs.stem + macs.classifier + sum(parts)
    assert macs.total - macs.ungated == sum(block.gate for block in macs.blocks.values())
