from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import models.checkpoint
from models.checkpoint import Checkpoint, CheckpointError, load, save
from models.resnet import AdaptiveResNet
from tests.models.conftest import MakeConfig, Malicious


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
    path.write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(CheckpointError):
        load(path)
    assert not trap.exists()


def test_weights_must_fit_the_config(checkpoint: Checkpoint, make_config: MakeConfig) -> None:
    names = [name for name in checkpoint.weights if name.startswith("blocks.stage3_block1.residual")]
    missing = {name: tensor for name, tensor in checkpoint.weights.items() if name not in names}
    wider, shallower = (
        make_config(stage_widths=(4, 8, 32)),
        make_config(stage_blocks=(1, 1), stage_widths=(4, 8), target_rates=(0.5, 0.5)),
    )
    for config, weights, problem in (
        (wider, checkpoint.weights, f"{names[0]} is (16, 8, 3, 3), not (32, 8, 3, 3); "),
        (shallower, checkpoint.weights, "it has no blocks.stage3_block1.residual.0.weight, "),
        (
            checkpoint.config,
            missing,
            f"it has {names[0]}, {names[1]}, {names[2]} and {len(names) - 3} more, which they lack",
        ),
    ):
        with pytest.raises(CheckpointError, match=re.escape(f"the weights do not fit small: {problem}")):
            Checkpoint(config, weights).network()


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
