from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import models.checkpoint
from models.checkpoint import Checkpoint, CheckpointError, load, load_published, rename_published, save
from models.config import ModelConfig
from models.resnet import AdaptiveResNet
from tests.models.conftest import MakeConfig, MakeNetwork, PublishedWeights


class _Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def checkpoint(network: AdaptiveResNet) -> Checkpoint:
    momentum = {"stem.0.weight": torch.randn(4, 3, 3, 3)}
    return Checkpoint(network.config, network.state_dict(), {"step": 7, "rate": 0.1 + 0.2}, momentum)


def test_checkpoint_comes_back_exactly(path: Path, checkpoint: Checkpoint) -> None:
    save(path, checkpoint)
    loaded = load(path)
    assert loaded.config == checkpoint.config
    assert loaded.training == checkpoint.training
    for ours, theirs in ((loaded.weights, checkpoint.weights), (loaded.optimizer, checkpoint.optimizer)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


def test_loaded_network_answers_as_the_saved_one(
    path: Path, checkpoint: Checkpoint, network: AdaptiveResNet, images: Tensor
) -> None:
    save(path, checkpoint)
    loaded = load(path).network()
    assert not loaded.training
    for ours, theirs in zip(loaded(images), network(images), strict=True):
        assert torch.equal(ours, theirs)


def test_channels_last_weights_are_saved_like_any(path: Path, checkpoint: Checkpoint, network: AdaptiveResNet) -> None:
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save(path, Checkpoint(network.config, network.state_dict()))
    assert all(torch.equal(tensor, checkpoint.weights[name]) for name, tensor in load(path).weights.items())


def test_failed_save_leaves_the_old_checkpoint(
    path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(path, checkpoint)
    before = path.read_bytes()

    def half_written(_: dict[str, Tensor], target: Path, __: dict[str, str]) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(models.checkpoint, "save_file", half_written)
    with pytest.raises(OSError, match="no space"):
        save(path, Checkpoint(checkpoint.config, {}, {"step": 8}))
    assert path.read_bytes() == before


def test_missing_checkpoint_says_so(path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load(path)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_checkpoint_is_refused(path: Path, checkpoint: Checkpoint, kept: float) -> None:
    save(path, checkpoint)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load(path)


def test_checkpoint_with_a_damaged_header_is_refused(path: Path, checkpoint: Checkpoint) -> None:
    save(path, checkpoint)
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"\xff" * 20 + content[60:])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load(path)


@pytest.mark.parametrize("header", [None, {"config": "{}", "training": "{}"}, {"config": "{"}])
def test_safetensors_file_of_another_kind_is_refused(path: Path, header: dict[str, str] | None) -> None:
    models.checkpoint.save_file({"weight": torch.zeros(2)}, path, header)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load(path)


def test_folder_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        load(tmp_path)


def test_loading_a_malicious_pickle_executes_nothing(path: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path.write_bytes(pickle.dumps(_Malicious(trap)))
    with pytest.raises(CheckpointError):
        load(path)
    assert not trap.exists()


def test_weights_must_fit_the_config(checkpoint: Checkpoint, make_config: MakeConfig) -> None:
    wider = make_config(stage_widths=(4, 8, 32))
    with pytest.raises(CheckpointError, match="do not fit small"):
        Checkpoint(wider, checkpoint.weights).network()


# The published checkpoints.


def _published_logits(weights: dict[str, Tensor], config: ModelConfig, x: Tensor) -> Tensor:
    """What the research code computes without noise, from its own names: gates as 1x1 convolutions."""
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = F.relu(norm(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1"))
    for stage, count in enumerate(config.stage_blocks, 1):
        for position in range(count):
            block, stride = f"layer{stage}.{position}", 2 if stage > 1 and position == 0 else 1
            hidden = F.conv2d(
                x.mean((2, 3), keepdim=True), weights[f"{block}.fc1.weight"], weights[f"{block}.fc1.bias"]
            )
            hidden = F.relu(norm(hidden, f"{block}.fc1bn"))
            skip, execute = F.conv2d(hidden, weights[f"{block}.fc2.weight"], weights[f"{block}.fc2.bias"]).unbind(1)
            residual = F.conv2d(x, weights[f"{block}.conv1.weight"], stride=stride, padding=1)
            residual = F.conv2d(F.relu(norm(residual, f"{block}.bn1")), weights[f"{block}.conv2.weight"], padding=1)
            if f"{block}.shortcut.0.weight" in weights:
                x = norm(F.conv2d(x, weights[f"{block}.shortcut.0.weight"], stride=stride), f"{block}.shortcut.1")
            x = F.relu(x + norm(residual, f"{block}.bn2") * (execute > skip)[:, None])
    return F.linear(x.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_every_published_name_maps_to_one_of_ours(
    make_network: MakeNetwork, published_weights: PublishedWeights, block: str, stem: str
) -> None:
    network = make_network(block=block, stem=stem, stage_blocks=(2, 1, 2), target_rates=(0.5,) * 5)
    renamed = rename_published(published_weights(network))
    own = network.state_dict()
    assert renamed.keys() == own.keys()
    assert all(torch.equal(renamed[name], own[name]) for name in own)


@pytest.mark.parametrize("zipped", [True, False])
def test_published_checkpoint_answers_as_the_research_code_without_noise(
    make_network: MakeNetwork, published_weights: PublishedWeights, images: Tensor, tmp_path: Path, zipped: bool
) -> None:
    network = make_network(stage_blocks=(2, 1, 1), target_rates=(0.5,) * 4)
    published, path = published_weights(network), tmp_path / "model_best.pth.tar"
    content = {"epoch": 3, "state_dict": published, "best_prec1": 93.5}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = load_published(path, network.config).network()
    torch.testing.assert_close(loaded(images).logits, _published_logits(published, network.config, images))
    assert 0 < loaded(images).open.mean() < 1


@pytest.mark.parametrize(
    ("stem", "std"), [("cifar", (0.2023, 0.1994, 0.2010)), ("imagenet", (0.25, 0.25, 0.25))], ids=["cifar", "imagenet"]
)
def test_published_cifar_network_is_given_the_normalisation_it_was_trained_with(
    make_network: MakeNetwork,
    published_weights: PublishedWeights,
    tmp_path: Path,
    stem: str,
    std: tuple[float, float, float],
) -> None:
    network, path = make_network(stem=stem), tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": published_weights(network)}, path)
    own, loaded = network.config.preprocessing, load_published(path, network.config).config.preprocessing
    assert loaded.std == std
    assert (loaded.resize, loaded.crop) == (own.resize, own.crop)
    # Of numbers that a preset has used already, nothing may stay behind.
    black = np.zeros((1, 1, 3), np.uint8)
    own.normalise(black)
    again = load_published(path, network.config).config.preprocessing
    np.testing.assert_allclose(again.normalise(black)[:, 0, 0], -np.divide(again.mean, std), rtol=1e-6)


def test_loading_a_malicious_published_checkpoint_executes_nothing(tmp_path: Path, config: ModelConfig) -> None:
    trap, path = tmp_path / "trap", tmp_path / "model_best.pth.tar"
    for zipped in (True, False):
        torch.save({"state_dict": _Malicious(trap)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="not a published checkpoint"):
            load_published(path, config)
        assert not trap.exists()


@pytest.mark.parametrize("content", [{}, {"state_dict": [1]}, {"state_dict": {"conv1.weight": 1}}, {"epoch": 1}, [1]])
def test_file_without_weights_is_not_a_published_checkpoint(
    tmp_path: Path, config: ModelConfig, content: object
) -> None:
    torch.save(content, tmp_path / "model_best.pth.tar")
    with pytest.raises(CheckpointError, match="not a published checkpoint"):
        load_published(tmp_path / "model_best.pth.tar", config)


def test_missing_or_damaged_published_checkpoint_is_refused(tmp_path: Path, config: ModelConfig) -> None:
    path = tmp_path / "model_best.pth.tar"
    with pytest.raises(CheckpointError):
        load_published(path, config)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(4, 3, 3, 3)}}, path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError):
        load_published(path, config)


def test_unknown_published_name_is_refused() -> None:
    with pytest.raises(CheckpointError, match="unknown weight 'features"):
        rename_published({"module.features.0.weight": torch.zeros(1)})


def test_published_checkpoint_of_another_network_is_refused(
    make_network: MakeNetwork, make_config: MakeConfig, published_weights: PublishedWeights
) -> None:
    weights = rename_published(published_weights(make_network()))
    with pytest.raises(CheckpointError, match="do not fit"):
        Checkpoint(make_config(stage_blocks=(1, 1, 2), target_rates=(0.5,) * 4), weights).network()


def test_error_tells_what_was_probably_meant(tmp_path: Path) -> None:
    run, artifact = tmp_path / "run", tmp_path / "artifact"
    for folder, file in ((run, "checkpoint.safetensors"), (artifact, "manifest.json"), (artifact, "model.onnx")):
        folder.mkdir(exist_ok=True)
        (folder / file).touch()
    for path, message in (
        (run, f"{run} is a folder; name the checkpoint in it, {run / 'checkpoint.safetensors'}"),
        (run / "best.safetensors", f"there is no checkpoint {run / 'best.safetensors'}; there is {run / 'checkpoint'}"),
        (artifact, f"{artifact} is a folder with an artifact, not a checkpoint: python -m models.evaluate takes it as"),
        (artifact / "model.onnx", f"{artifact / 'model.onnx'} is a file of an artifact"),
        (tmp_path, f"{tmp_path} is a folder without a checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}"):
            load(path)
