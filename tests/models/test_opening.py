from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from artifact.manifest import ArtifactError
from models.checkpoint import CheckpointError, save
from models.classifier import TrainedClassifier
from models.examples import DataError
from models.exported import ExportedClassifier
from models.opening import open_checkpoint, open_either, open_exported, open_trained, require_source, require_ungated
from tests.networks import checkpoint_of, small_network

CPU = torch.device("cpu")
LABELS = small_network().config.labels


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save(tmp_path / "checkpoint.safetensors", checkpoint_of(small_network()))
    return tmp_path / "checkpoint.safetensors"


def test_preset_is_for_published_checkpoints_and_for_all_of_them(checkpoint: Path, tmp_path: Path) -> None:
    published = tmp_path / "model_best.pth.tar"
    published.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="add --preset"):
        open_checkpoint(published)
    with pytest.raises(CheckpointError, match="leave out --preset"):
        open_checkpoint(checkpoint, "convnet-aig-20-cifar10")
    for path in (published, checkpoint):
        with pytest.raises(ValueError, match="unknown preset 'resnet'"):
            open_checkpoint(path, "resnet")
    with pytest.raises(CheckpointError, match="not a published checkpoint"):
        open_checkpoint(published, "convnet-aig-20-cifar10")
    assert open_checkpoint(checkpoint).config == small_network().config


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
