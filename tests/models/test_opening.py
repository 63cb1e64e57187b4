from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from artifact.manifest import ArtifactError
from models.cascade import Cascade
from models.checkpoint import Checkpoint, CheckpointError, save
from models.classifier import TrainedClassifier
from models.config import CascadeConfig, numbered_labels, preset
from models.examples import DataError
from models.exported import ExportedClassifier
from models.opening import (
    Told,
    open_checkpoint,
    open_either,
    open_exported,
    open_source,
    open_trained,
    require_source,
    require_ungated,
)
from models.resnet import AdaptiveResNet
from tests.models.conftest import torchvision_weights
from tests.networks import checkpoint_of, small_network

CPU = torch.device("cpu")
LABELS = small_network().config.labels


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save(tmp_path / "checkpoint.safetensors", checkpoint_of(small_network()))
    return tmp_path / "checkpoint.safetensors"


def test_preset_is_for_weights_that_others_saved_and_for_all_of_them(checkpoint: Path, tmp_path: Path) -> None:
    published = tmp_path / "model_best.pth.tar"
    published.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="add --preset"):
        open_checkpoint(published)
    with pytest.raises(CheckpointError, match="leave out --preset"):
        open_checkpoint(checkpoint, Told("convnet-aig-20-cifar10"))
    for path in (published, checkpoint):
        with pytest.raises(ValueError, match="unknown preset 'resnet'"):
            open_checkpoint(path, Told("resnet"))
    with pytest.raises(CheckpointError, match="no weights that can be read safely"):
        open_checkpoint(published, Told("convnet-aig-20-cifar10"))
    assert open_checkpoint(checkpoint).config == small_network().config


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Weights of a ResNet of 18 layers and 5 classes, under torchvision's names."""
    config = preset("convnet-aig-18-imagenet").without_gates().with_labels(numbered_labels(5))
    path = tmp_path / "resnet18.safetensors"
    save_file(torchvision_weights(AdaptiveResNet(config)), path)
    return path


def test_gates_and_classes_are_as_they_are_told(others: Path) -> None:
    name = "convnet-aig-18-imagenet"
    with pytest.raises(CheckpointError, match=r"does not say its network, as others saved it: add --preset"):
        open_checkpoint(others)
    with pytest.raises(CheckpointError, match=r"resnet18\.safetensors has no gates: add --plain"):
        open_checkpoint(others, Told(name))
    with pytest.raises(CheckpointError, match="has 5 classes, and 2 are named"):
        open_checkpoint(others, Told(name, plain=True, labels=("cat", "dog")))
    for labels, expected in ((None, numbered_labels(5)), (tuple("abcde"), tuple("abcde"))):
        checkpoint = open_checkpoint(others, Told(name, plain=True, labels=labels))
        assert (checkpoint.config.name, checkpoint.config.labels) == (f"{name}-plain", expected)


def test_training_starts_from_either_kind(others: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert open_source(checkpoint, small_network().config, None).config == small_network().config
    assert not open_source(others, preset("convnet-aig-18-imagenet"), None).config.gated
    with pytest.raises(CheckpointError, match="strides are in the 3x3 convolutions: leave out --bottleneck-stride"):
        open_source(checkpoint, small_network().config, "1x1")
    first = checkpoint_of(small_network())
    network = Cascade(CascadeConfig(name="pair", networks=(first.config,) * 2, sure_above=(1.0,)))
    save(tmp_path / "cascade.safetensors", Checkpoint(network.config, network.state_dict()))
    with pytest.raises(CheckpointError, match="is a cascade"):
        open_source(tmp_path / "cascade.safetensors", first.config, None)


def test_kind_is_told_from_what_lies_there(checkpoint: Path, artifact: Path) -> None:
    assert isinstance(open_either(checkpoint, LABELS, CPU), TrainedClassifier)
    assert isinstance(open_either(artifact, LABELS, CPU), ExportedClassifier)


def test_other_classes_are_refused(checkpoint: Path, artifact: Path) -> None:
    for path in (checkpoint, artifact):
        with pytest.raises(DataError, match=f"classes are cat, dog; those of {path.name} are ant, bee, cat"):
            open_either(path, ("cat", "dog"), CPU)


def test_artifact_of_another_checkpoint_is_refused(checkpoint: Path, artifact: Path) -> None:
    exported = open_exported(artifact, LABELS)  # its manifest names a checkpoint of another digest
    with pytest.raises(ArtifactError, match=r"small was not exported from checkpoint\.safetensors"):
        require_source(exported, checkpoint)


def _classifier(**changes: object) -> TrainedClassifier:
    return TrainedClassifier(checkpoint_of(small_network(**changes)), CPU)


def test_network_to_compare_with_is_the_same_without_gates(artifact: Path) -> None:
    plain = _classifier(target_rates=(1.0,) * 5, name="plain")
    for classifier in (plain, _classifier(), open_exported(artifact, LABELS)):
        require_ungated(plain, classifier)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_rates": (1.0,) * 4 + (0.5,)}, "other has gates"),
        ({"stage_widths": (8, 8, 16)}, "other is not small without gates"),
        ({"stage_blocks": (1, 2, 2)}, "other is not small without gates"),
        ({"block": "bottleneck"}, "other is not small without gates"),
    ],
)
def test_network_of_another_kind_is_not_compared_with(changes: dict[str, object], message: str) -> None:
    other = _classifier(**({"name": "other", "target_rates": (1.0,) * 5} | changes))
    with pytest.raises(ValueError, match=message):
        require_ungated(other, _classifier())


def test_damaged_artifact_is_not_run(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="damaged"):
        open_exported(copy, LABELS)


def test_published_network_takes_the_names_of_the_data(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = ExportedClassifier(artifact)
    numbered = exported.manifest.model_copy(update={"labels": tuple(f"class {index}" for index in range(6))})
    monkeypatch.setattr("models.exported.read_manifest", lambda _: numbered)
    assert open_exported(artifact, LABELS).structure.labels == LABELS
    with pytest.raises(DataError):
        open_exported(artifact, LABELS[:5])


def test_missing_runtime_says_what_to_install(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtifactError, match=r"pip install '\.\[cpu\]'"):
        open_exported(artifact, LABELS)


def test_batch_size_is_that_of_the_runtime_unless_asked_for(checkpoint: Path, artifact: Path) -> None:
    assert open_trained(checkpoint, LABELS, CPU).batch_size == 256
    assert open_exported(artifact, LABELS).batch_size == 16
    assert open_exported(artifact, LABELS, 5).batch_size == 5
