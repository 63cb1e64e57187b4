from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.config import CIFAR10_LABELS, PRESETS, ModelConfig, preset
from tests.models.conftest import MakeConfig


def test_image_size_is_resized_in_proportion() -> None:
    for name, size, expected in (
        ("convnet-aig-50-imagenet", 160, (183, 160)),
        ("convnet-aig-20-cifar10", 24, (24, 24)),
    ):
        preprocessing = preset(name).with_image_size(size).preprocessing
        assert (preprocessing.resize, preprocessing.crop) == expected


def test_presets_are_the_networks_of_the_paper_and_their_relations() -> None:
    depths = [f"{depth}-cifar10" for depth in (8, 14, 20, 26, 32, 38, 56, 110)]
    depths += [f"{depth}-imagenet" for depth in (18, 34, 50, 101, 152)]
    assert list(PRESETS) == [f"convnet-aig-{depth}" for depth in depths]


def test_preset_goes_by_its_own_name() -> None:
    assert preset("convnet-aig-110-cifar10").name == "convnet-aig-110-cifar10"
    assert preset("convnet-aig-110-cifar10").labels == CIFAR10_LABELS
    assert preset("convnet-aig-110-cifar10").block_count == 54


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'resnet'; there are .*convnet-aig-50-imagenet"):
        preset("resnet")


def test_config_survives_json(config: ModelConfig) -> None:
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_one_target_rate_stands_for_every_block(config: ModelConfig) -> None:
    assert config.with_target_rates(0.8).target_rates == (0.8, 0.8, 0.8)
    assert config.with_target_rates((0.2, 0.4, 1.0)).target_rates == (0.2, 0.4, 1.0)
    assert config.with_target_rates(1).target_rates == (1.0, 1.0, 1.0)


def test_network_without_gates_says_so_in_its_name(config: ModelConfig) -> None:
    assert config.without_gates().target_rates == (1.0, 1.0, 1.0)
    assert config.without_gates().name == "small-plain"


def test_labels_can_be_replaced_but_not_by_a_single_one(config: ModelConfig) -> None:
    assert config.with_labels(("a", "b", "c")).labels == ("a", "b", "c")
    with pytest.raises(ValidationError, match="at least 2"):
        config.with_labels(("only",))


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.5, 0.5, 0.0), (0.5, 0.5, 1.1), (0.5, 0.5, float("nan"))])
def test_target_rates_must_fit_the_blocks_and_lie_between_0_and_1(
    config: ModelConfig, rates: tuple[float, ...]
) -> None:
    with pytest.raises(ValidationError):
        config.with_target_rates(rates)


def test_stages_need_as_many_widths_as_depths(make_config: MakeConfig) -> None:
    with pytest.raises(ValidationError, match="differ in length"):
        make_config(stage_widths=(4, 8))


def test_unknown_field_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ValidationError):
        make_config(dropout=0.5)


def test_config_cannot_be_changed(config: ModelConfig) -> None:
    with pytest.raises(ValidationError):
        config.name = "other"  # type: ignore[misc]
