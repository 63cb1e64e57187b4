"""Opening the networks a command line names, and making sure that they fit the data and each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from artifact.manifest import MANIFEST_NAME, ArtifactError, file_digest
from models.checkpoint import Checkpoint, CheckpointError, load, tells_its_network
from models.classifier import Classifier, TrainedClassifier
from models.config import BottleneckStride, ModelConfig, numbered_labels, preset
from models.examples import DataError
from models.exported import ExportedClassifier
from models.pretrained import load_pretrained

_PICKLES = (".pth", ".pt", ".tar", ".bin")


@dataclass(frozen=True)
class Told:
    """What a user tells of weights that others saved, which do not tell it themselves.

    Attributes:
        preset: names a network of the same shape.
        plain: whether it has no gates.
        bottleneck_stride: where it has its strides; None where the file tells, or where others have them.
        labels: names of its classes; None for those of the preset.
    """

    preset: str
    plain: bool = False
    bottleneck_stride: BottleneckStride | None = None
    labels: tuple[str, ...] | None = None


def open_checkpoint(path: Path, told: Told | None = None) -> Checkpoint:
    """Read a checkpoint of this project, or weights that others saved, of which something has to be told.

    Raises:
        CheckpointError: it cannot be read, or what is told is missing, wrong, or needed by nothing.
        ValueError: there is no such preset, or it has no such strides.
    """
    if told is None:
        if _of_others(path):
            raise CheckpointError(f"{path} does not say its network, as others saved it: add --preset")
        return load(path)
    shape = preset(told.preset)
    if tells_its_network(path):
        raise CheckpointError(f"{path} is a checkpoint of this project, which says its network: leave out --preset")
    checkpoint = load_pretrained(path, shape, told.bottleneck_stride)
    config = checkpoint.config
    assert isinstance(config, ModelConfig)
    if told.plain != (not config.gated):
        raise CheckpointError(f"{path.name} has {'gates: leave out' if told.plain else 'no gates: add'} --plain")
    if told.labels is not None:
        if len(told.labels) != len(config.labels):
            raise CheckpointError(f"{path.name} has {len(config.labels)} classes, and {len(told.labels)} are named")
        checkpoint = replace(checkpoint, config=config.with_labels(told.labels))
    return checkpoint


def open_source(path: Path, config: ModelConfig, bottleneck_stride: BottleneckStride | None) -> Checkpoint:
    """Read what a network like `config` is to start from: a checkpoint of this project, or weights that others saved.

    Raises:
        CheckpointError: it cannot be read, is a cascade, or has its strides elsewhere than is said.
    """
    if _of_others(path):
        return load_pretrained(path, config, bottleneck_stride)
    checkpoint = load(path)
    if not isinstance(checkpoint.config, ModelConfig):
        raise CheckpointError(f"{path} is a cascade, and no single network")
    if bottleneck_stride not in (None, checkpoint.config.bottleneck_stride):
        raise CheckpointError(
            f"{path} says that its strides are in the {checkpoint.config.bottleneck_stride} convolutions: "
            "leave out --bottleneck-stride"
        )
    return checkpoint


def _of_others(path: Path) -> bool:
    """Whether a file has weights, and not the header of this project's checkpoints."""
    if path.suffix == ".safetensors":
        return tells_its_network(path) is False
    return path.is_file() and path.suffix in _PICKLES


def open_trained(
    path: Path,
    labels: tuple[str, ...],
    device: torch.device,
    told: Told | None = None,
    batch_size: int | None = None,
) -> TrainedClassifier:
    """Open a checkpoint whose classes are these labels of the data.

    Raises:
        CheckpointError: see `open_checkpoint`.
        DataError: its classes are others.
        ValueError: there is no such preset.
    """
    checkpoint = open_checkpoint(path, told)
    config, own = checkpoint.config, checkpoint.config.labels
    # An ImageNet network numbers its classes in the order of the synsets, which is that of the data's folders.
    if isinstance(config, ModelConfig) and own == numbered_labels(len(labels)):
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
    # What an ImageNet network was exported with: no names, but the order of the synsets.
    if own == numbered_labels(len(labels)):
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
