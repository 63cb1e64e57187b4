from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from models.checkpoint import CheckpointError, load, save
from models.config import BottleneckStride, ModelConfig, numbered_labels
from models.pretrained import load_pretrained, own_weights, stride_note
from models.resnet import AdaptiveResNet
from tests.models.conftest import MakeConfig, MakeNetwork, Malicious, published_weights, torchvision_weights
from tests.networks import checkpoint_of

PLAIN = {"target_rates": (1.0,) * 3}
BOTTLENECKS = {"block": "bottleneck", "stem": "imagenet"}


def _logits(weights: dict[str, Tensor], config: ModelConfig, x: Tensor) -> Tensor:
    """What the research code and torchvision compute without noise, from their own names: gates as 1x1 convolutions."""
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    strided = 1 if config.bottleneck_stride == "1x1" or config.block == "basic" else 2
    shortcut = "downsample" if "fc.weight" in weights else "shortcut"

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def convolved(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def opened(x: Tensor, block: str) -> Tensor:
        hidden = F.conv2d(x.mean((2, 3), keepdim=True), weights[f"{block}.fc1.weight"], weights[f"{block}.fc1.bias"])
        hidden = F.relu(norm(hidden, f"{block}.fc1bn"))
        skip, execute = F.conv2d(hidden, weights[f"{block}.fc2.weight"], weights[f"{block}.fc2.bias"]).unbind(1)
        return (execute > skip)[:, None]

    imagenet = config.stem == "imagenet"
    x = F.relu(norm(convolved(x, "conv1", stride=2 if imagenet else 1), "bn1"))
    x = F.max_pool2d(x, 3, 2, padding=1) if imagenet else x
    for stage, count in enumerate(config.stage_blocks, 1):
        for position in range(count):
            block, stride = f"layer{stage}.{position}", 2 if stage > 1 and position == 0 else 1
            residual = x
            for number in range(1, {"basic": 2, "bottleneck": 3}[config.block] + 1):
                residual = F.relu(residual) if number > 1 else residual
                residual = convolved(residual, f"{block}.conv{number}", stride if number == strided else 1)
                residual = norm(residual, f"{block}.bn{number}")
            if f"{block}.fc1.weight" in weights:
                residual = residual * opened(x, block)
            if f"{block}.{shortcut}.0.weight" in weights:
                x = norm(convolved(x, f"{block}.{shortcut}.0", stride), f"{block}.{shortcut}.1")
            x = F.relu(x + residual)
    classifier = "fc" if "fc.weight" in weights else "linear"
    return F.linear(x.mean((2, 3)), weights[f"{classifier}.weight"], weights[f"{classifier}.bias"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_network_of_torchvision_answers_as_it_does_there(
    make_network: MakeNetwork,
    images: Tensor,
    tmp_path: Path,
    block: str,
    suffix: str,
) -> None:
    network = make_network(**PLAIN, block=block, stem="imagenet")
    theirs, path = torchvision_weights(network), tmp_path / f"resnet{suffix}"
    if suffix == ".pth":
        torch.save(theirs, path)
    else:
        save_file(theirs, path)
    loaded = load_pretrained(path, network.config)
    assert loaded.config.target_rates == PLAIN["target_rates"]
    torch.testing.assert_close(loaded.network()(images).logits, _logits(theirs, network.config, images))


@pytest.mark.parametrize("told", ["metadata", "argument"])
@pytest.mark.parametrize("position", ["1x1", "3x3"])
def test_strides_are_where_the_file_or_the_user_says(
    make_network: MakeNetwork,
    images: Tensor,
    tmp_path: Path,
    position: BottleneckStride,
    told: str,
) -> None:
    network = make_network(**PLAIN, **BOTTLENECKS)
    theirs, path = torchvision_weights(network), tmp_path / "resnet.safetensors"
    save_file(theirs, path, {"stride": f"v1: 2 in conv1 ({position})"} if told == "metadata" else None)
    loaded = load_pretrained(path, network.config, position if told == "argument" else None)
    assert loaded.config.bottleneck_stride == position
    assert stride_note(loaded) is None
    expected = {each: _logits(theirs, network.config.with_bottleneck_stride(each), images) for each in ("1x1", "3x3")}
    torch.testing.assert_close(loaded.network()(images).logits, expected[position])
    assert not torch.allclose(expected["1x1"], expected["3x3"], atol=1e-2)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"stride": "1x1 or 3x3"}])
def test_assumed_stride_is_told(make_network: MakeNetwork, tmp_path: Path, metadata: dict[str, str] | None) -> None:
    network, path = make_network(**PLAIN, **BOTTLENECKS), tmp_path / "resnet.safetensors"
    save_file(torchvision_weights(network), path, metadata)
    loaded = load_pretrained(path, network.config)
    assert loaded.config.bottleneck_stride == "3x3"
    assert "in the 3x3 convolution" in (stride_note(loaded) or "")


def test_basic_blocks_have_no_such_stride(make_network: MakeNetwork, tmp_path: Path) -> None:
    network, path = make_network(**PLAIN), tmp_path / "resnet.safetensors"
    save_file(torchvision_weights(network), path)
    assert stride_note(load_pretrained(path, network.config)) is None
    with pytest.raises(ValueError, match="small has basic blocks"):
        load_pretrained(path, network.config, "1x1")


def test_half_precision_becomes_fp32_and_missing_counts_are_zero(make_network: MakeNetwork, tmp_path: Path) -> None:
    network, path = make_network(**PLAIN), tmp_path / "resnet.pth"
    theirs = torchvision_weights(network)
    torch.save({name: tensor.half() for name, tensor in theirs.items() if "num_batches" not in name}, path)
    weights = load_pretrained(path, network.config).weights
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(weights[name], tensor * ("num_batches" not in name), rtol=1e-3, atol=1e-3)


def test_classes_are_as_many_as_in_the_file(make_network: MakeNetwork, make_config: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file(torchvision_weights(make_network(**PLAIN, labels=tuple("abcde"))), path)
    assert load_pretrained(path, make_config()).config.labels == numbered_labels(5)
    assert load_pretrained(path, make_config(labels=tuple("fghij"))).config.labels == tuple("fghij")


def test_network_of_another_shape_is_refused_by_name(
    make_network: MakeNetwork, make_config: MakeConfig, tmp_path: Path
) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file(torchvision_weights(make_network(**PLAIN)), path)
    for changes, problem in (
        ({"stage_blocks": (1, 1, 2), "target_rates": (1.0,) * 4}, "it has blocks.stage3_block2.residual.0.weight, "),
        (
            {"stage_blocks": (1, 1), "stage_widths": (4, 8), "target_rates": (1.0,) * 2},
            "it has no blocks.stage3_block1",
        ),
        ({"stage_widths": (4, 8, 12)}, "blocks.stage3_block1.residual.0.weight is (16, 8, 3, 3), not (12, 8, 3, 3)"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(problem)):
            load_pretrained(path, make_config(**changes))


@pytest.mark.parametrize(
    "name", ["features.0.weight", "conv1.0.weight", "layer1.0.se.fc1.weight", "fc", "layer1.conv1"]
)
def test_name_that_no_resnet_has_is_told(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"unknown weight {name!r}"):
        own_weights({f"module.{name}": torch.zeros(1)})


def test_loading_malicious_weights_executes_nothing(tmp_path: Path, config: ModelConfig) -> None:
    trap, path = tmp_path / "trap", tmp_path / "model_best.pth.tar"
    for zipped in (True, False):
        torch.save({"state_dict": Malicious(trap)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="no weights that can be read safely"):
            load_pretrained(path, config)
        assert not trap.exists()


@pytest.mark.parametrize("content", [{}, {"state_dict": [1]}, {"state_dict": {"conv1.weight": 1}}, {"epoch": 1}, [1]])
def test_file_without_weights_is_refused(tmp_path: Path, config: ModelConfig, content: object) -> None:
    torch.save(content, tmp_path / "model_best.pth.tar")
    with pytest.raises(CheckpointError, match="has no weights"):
        load_pretrained(tmp_path / "model_best.pth.tar", config)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_missing_or_damaged_file_is_refused(tmp_path: Path, network: AdaptiveResNet, suffix: str) -> None:
    path = tmp_path / f"resnet{suffix}"
    with pytest.raises(CheckpointError, match="there is no file"):
        load_pretrained(path, network.config)
    weights = {name: tensor.contiguous() for name, tensor in published_weights(network).items()}
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    load_pretrained(path, network.config)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="no weights that can be read"):
        load_pretrained(path, network.config)


# The published checkpoints, which have gates.


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_every_published_name_maps_to_one_of_ours(make_network: MakeNetwork, block: str, stem: str) -> None:
    network = make_network(block=block, stem=stem, stage_blocks=(2, 1, 2), target_rates=(0.5,) * 5)
    renamed = own_weights(published_weights(network))
    own = network.state_dict()
    assert renamed.keys() == own.keys()
    assert all(torch.equal(renamed[name], own[name]) for name in own)


@pytest.mark.parametrize("rates", [(0.5,) * 4, (1.0, 0.5, 0.5, 1.0)])
@pytest.mark.parametrize("zipped", [True, False])
def test_published_checkpoint_answers_as_the_research_code_without_noise(
    make_network: MakeNetwork,
    images: Tensor,
    tmp_path: Path,
    zipped: bool,
    rates: tuple[float, ...],
) -> None:
    network = make_network(stage_blocks=(2, 1, 1), target_rates=rates)
    published, path = published_weights(network), tmp_path / "model_best.pth.tar"
    content = {"epoch": 3, "state_dict": published, "best_prec1": 93.5}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    checkpoint = load_pretrained(path, network.config.with_target_rates(0.7))
    assert [rate < 1 for rate in checkpoint.config.target_rates] == [rate < 1 for rate in rates]
    loaded = checkpoint.network()
    torch.testing.assert_close(loaded(images).logits, _logits(published, network.config, images))
    assert 0 < loaded(images).open.mean() < 1


@pytest.mark.parametrize(
    ("stem", "std"), [("cifar", (0.2023, 0.1994, 0.2010)), ("imagenet", (0.25, 0.25, 0.25))], ids=["cifar", "imagenet"]
)
def test_published_cifar_network_is_given_the_normalisation_it_was_trained_with(
    make_network: MakeNetwork,
    tmp_path: Path,
    stem: str,
    std: tuple[float, float, float],
) -> None:
    network, path = make_network(stem=stem), tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": published_weights(network)}, path)
    own, loaded = network.config.preprocessing, load_pretrained(path, network.config).config.preprocessing
    assert loaded.std == std
    assert (loaded.resize, loaded.crop) == (own.resize, own.crop)
    # Of numbers that a preset has used already, nothing may stay behind.
    black = np.zeros((1, 1, 3), np.uint8)
    own.normalise(black)
    again = load_pretrained(path, network.config).config.preprocessing
    np.testing.assert_allclose(again.normalise(black)[:, 0, 0], -np.divide(again.mean, std), rtol=1e-6)


def test_own_checkpoint_of_either_stride_comes_back(make_network: MakeNetwork, tmp_path: Path) -> None:
    for position in ("1x1", "3x3"):
        network = make_network(**PLAIN, **BOTTLENECKS, bottleneck_stride=position)
        save(tmp_path / "checkpoint.safetensors", checkpoint_of(network))
        assert load(tmp_path / "checkpoint.safetensors").config.bottleneck_stride == position
