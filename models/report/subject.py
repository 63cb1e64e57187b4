"""Everything a report is made from: the network, what it may be compared with, and the images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.answers import Images
from models.classifier import Classifier, TrainedClassifier
from models.config import CIFAR10_LABELS
from models.examples import DataError

Groups = Mapping[str, tuple[str, ...]]
"""Names of classes by the name of their group."""

_CIFAR10_GROUPS = {
    "animals": ("bird", "cat", "deer", "dog", "frog", "horse"),
    "man-made things": ("airplane", "automobile", "ship", "truck"),
}


@dataclass(frozen=True)
class Subject:
    """What is reported on.

    Attributes:
        classifier: the network whose answers are reported.
        images: what it is asked.
        sample: positions of the images that are run many times.
        trained: the same network where gradients can be had; None without a checkpoint.
        ungated: the same network without gates; None where none was given.
        groups: of classes, to be compared.
        gate_offset: added to every margin throughout.
        shows_images: whether the page may have images in it, which not every data set allows to be passed on.
        context: what the page says of the data, such as which images of it were taken.
    """

    classifier: Classifier
    images: Images
    sample: np.ndarray
    trained: TrainedClassifier | None = None
    ungated: Classifier | None = None
    groups: Groups = field(default_factory=dict)
    gate_offset: float = 0.0
    shows_images: bool = True
    context: str = ""

    @property
    def trained_offset(self) -> float:
        """The gate offset for the trained network, whose threshold is 0, to decide as the classifier does."""
        return self.gate_offset - self.classifier.structure.gate_threshold


def groups_of(labels: tuple[str, ...], file: Path | None) -> Groups:
    """The groups in a JSON file of class names by group, or those known for the labels, or none.

    Raises:
        DataError: the file is no such file, names a class that there is not, or names one twice.
        OSError: it cannot be read.
    """
    if file is None:
        return _CIFAR10_GROUPS if set(labels) == set(CIFAR10_LABELS) else {}
    try:
        groups = {str(name): tuple(map(str, members)) for name, members in json.loads(file.read_text("utf-8")).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f'{file} must hold JSON such as {{"animals": ["cat", "dog"], …}}: {error}') from error
    members = [label for group in groups.values() for label in group]
    if unknown := sorted(set(members) - set(labels)):
        raise DataError(f"{file} names {unknown[0]!r}, which is not a class of the network")
    if twice := sorted({label for label in members if members.count(label) > 1}):
        raise DataError(f"{file} names {twice[0]!r} twice")
    return groups
