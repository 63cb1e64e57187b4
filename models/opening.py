"""Opening the networks a command line names, and making sure that they fit the data and each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from artifact.manifest import MANIFEST_NAME, ArtifactError, file_digest
from models.checkpoint import Checkpoint, CheckpointError, load, load_published
from models.classifier import Classifier, TrainedClassifier
from models.config import ModelConfig, preset
from models.examples import DataError
from models.exported import ExportedClassifier


def open_checkpoint(path: Path, preset_name: str | None = None) -> Checkpoint:
    """Read a checkpoint of this project, or a published one, whose network a preset has to name.

    Raises:
        CheckpointError: it cannot be read, or the preset is missing, or one is named that nothing needs.
        ValueError: there is no such preset.
    """
    if preset_name is None:
        if path.name.endswith(".pth.tar"):
            raise CheckpointError(f"{path} is a published checkpoint, which does not say its network: add --preset")
        return load(path)
    config = preset(preset_name)
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path} is a checkpoint of this project, which says its network: leave out --preset")
    return load_published(path, config)


def open_trained(
    path: Path,
    labels: tuple[str, ...],
    device: torch.device,
    preset_name: str | None = None,
    batch_size: int | None = None,
) -> TrainedClassifier:
    """Open a checkpoint whose classes are these labels of the data.

    Raises:
        CheckpointError: see `open_checkpoint`.
        DataError: its classes are others.
        ValueError: there is no such preset.
    """
    checkpoint = open_checkpoint(path, preset_name)
    config, own = checkpoint.config, checkpoint.config.labels
    # A published ImageNet network numbers its classes in the order of the synsets, which is that of the data's folders.
    if preset_name and isinstance(config, ModelConfig) and config.stem == "imagenet" and len(own) == len(labels):
        checkpoint = replace(checkpoint, config=config.with_labels(labels))
    else:
        _require_labels(path, own, labels)
    return TrainedClassifier(checkpoint, device, batch_size or 256)


def open_exported(folder: Path, labels: tuple[str, ...], batch_size: int | None = None) -> ExportedClassifier:
    """Open an artifact whose classes are these labels of the data.

    Raises:
        ArtifactError: it cannot be opened.
        DataError: its classes are others.
    """
    classifier = ExportedClassifier(folder, batch_size or 16)
    own = classifier.structure.labels
    # What a published ImageNet network was exported with: no names, but the order of the synsets.
    if own == tuple(f"class {index}" for index in range(len(labels))):
        classifier.structure = replace(classifier.structure, labels=labels)
    else:
        _require_labels(folder, own, labels)
    return classifier


def open_either(path: Path, labels: tuple[str, ...], device: torch.device) -> Classifier:
    """Open an artifact's folder or a checkpoint's file; see `open_exported` and `open_trained`."""
    if (path / MANIFEST_NAME).is_file():
        return open_exported(path, labels)
    return open_trained(path, labels, device)


def require_source(exported: ExportedClassifier, checkpoint: Path) -> None:
    """Make sure that an artifact was exported from this very checkpoint.

    Raises:
        ArtifactError: it was not.
    """
    if file_digest(checkpoint) != exported.manifest.source_digest:
        name = exported.manifest.name
        raise ArtifactError(f"{name} was not exported from {checkpoint.name}: its manifest names another checkpoint")


def require_ungated(ungated: Classifier, classifier: Classifier) -> None:
    """Make sure that a network is one to compare another with: without gates, of the same blocks and MACs.

    Raises:
        ValueError: it is not.
    """
    own, other = ungated.structure, classifier.structure
    if own.gated.size:
        raise ValueError(f"{own.name} has gates: --ungated takes a network without any")
    same_blocks = own.block_names == other.block_names and np.array_equal(own.skippable_macs, other.skippable_macs)
    if not same_blocks or own.ungated_macs != other.ungated_macs:
        raise ValueError(f"{own.name} is not {other.name} without gates: its blocks or their MACs are others")


def _require_labels(path: Path, own: tuple[str, ...], labels: tuple[str, ...]) -> None:
    if own != labels:
        raise DataError(f"the data's classes are {_few(labels)}; those of {path.name} are {_few(own)}")


def _few(labels: tuple[str, ...]) -> str:
    """Class names short enough for one line."""
    return ", ".join(labels[:3]) + (f", … ({len(labels)} in all)" if len(labels) > 3 else "")
