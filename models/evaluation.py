"""What a network does on a set of images: its answers, its paths and their cost. Nothing here draws or prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from models.classification import (
    ByClass,
    Guesses,
    by_class,
    calibration_error,
    confusion_matrix,
    guesses,
    most_confused,
)
from models.data import Dataset
from models.intervals import share
from models.resnet import AdaptiveResNet
from models.structure import Structure

_TOP = 5
_MOST_CONFUSIONS = 20


@dataclass(frozen=True)
class Evaluation:
    """Per-image results of N images on a network with G gated among its B blocks.

    Attributes:
        labels: class names.
        block_names: of all B blocks.
        classes: (N,) the true class.
        guesses: what the logits say, see `models.classification`.
        executed: (N, B) whether each block ran.
        margins: (N, G) gate margins.
        mac_share: (N,) MACs spent, gates included, over the MACs of the same network without gates.
    """

    labels: tuple[str, ...]
    block_names: tuple[str, ...]
    classes: np.ndarray
    guesses: Guesses
    executed: np.ndarray
    margins: np.ndarray
    mac_share: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(N,) whether the prediction is right."""
        return self.guesses.ranks == 0

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly."""
        return float(self.correct.mean())

    @property
    def top_5_accuracy(self) -> float | None:
        """Share of the images whose class is among the five most probable; None where there are no more classes."""
        return float((self.guesses.ranks < _TOP).mean()) if len(self.labels) > _TOP else None

    @property
    def calibration_error(self) -> float:
        """How far confidence is from accuracy, see `models.classification.calibration_error`."""
        return calibration_error(self.guesses.confidences, self.correct)

    @cached_property
    def confusions(self) -> np.ndarray:
        """(classes, classes) images by true class (rows) and predicted class (columns)."""
        return confusion_matrix(self.classes, self.guesses.predicted, len(self.labels))

    @cached_property
    def scores(self) -> ByClass:
        """Precision, recall and F1 of each class."""
        return by_class(self.confusions)

    @property
    def class_rates(self) -> np.ndarray:
        """(classes, B) execution rate of each block over the images of each class; NaN for a class without images."""
        return self._class_means(self.executed)

    @property
    def class_mac_shares(self) -> np.ndarray:
        """(classes,) mean MAC share of the images of each class; NaN for a class without images."""
        return self._class_means(self.mac_share)

    def _class_means(self, values: np.ndarray) -> np.ndarray:
        """(classes, ...) means of (N, ...) values over the images of each class."""
        means = np.full((len(self.labels), *values.shape[1:]), np.nan)
        for index in np.unique(self.classes):
            means[index] = values[self.classes == index].mean(axis=0)
        return means

    def summary(self) -> dict[str, Any]:
        """Figures for a machine to read: overall, by block and by class. An interval is that of 95% confidence."""
        estimate = share(self.correct)
        return {
            "images": len(self.classes),
            "accuracy": self.accuracy,
            "accuracy_interval": [estimate.low, estimate.high],
            "top_5_accuracy": self.top_5_accuracy,
            "macro_f1": float(np.nanmean(self.scores.f1)),
            "mean_confidence": float(self.guesses.confidences.mean()),
            "expected_calibration_error": self.calibration_error,
            "confusions": [
                {"class": self.labels[true], "predicted": self.labels[predicted], "images": images}
                for true, predicted, images in most_confused(self.confusions, _MOST_CONFUSIONS)
            ],
            "mac_share": float(self.mac_share.mean()),
            "mac_share_p05": float(np.quantile(self.mac_share, 0.05)),
            "mac_share_p95": float(np.quantile(self.mac_share, 0.95)),
            "executed_share": float(self.executed.mean()),
            "distinct_paths": len(np.unique(self.executed, axis=0)),
            "execution_rates": dict(zip(self.block_names, self.executed.mean(axis=0).tolist(), strict=True)),
            "classes": {label: self._class_summary(index) for index, label in enumerate(self.labels)},
        }

    def _class_summary(self, index: int) -> dict[str, Any]:
        members = self.classes == index
        if not members.any():
            return {"images": 0}
        return {
            "images": int(members.sum()),
            **{name: _number(values[index]) for name, values in self.scores._asdict().items()},
            "mac_share": float(self.mac_share[members].mean()),
            "execution_rates": dict(zip(self.block_names, self.executed[members].mean(axis=0).tolist(), strict=True)),
        }


@torch.inference_mode()
def evaluate(
    network: AdaptiveResNet,
    dataset: Dataset,
    batch_size: int = 256,
    gate_offset: float = 0.0,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Run the network in evaluation mode, in float32, over all images of the dataset, of which there must be some.

    Args:
        gate_offset: added to every margin before the decision, to run the network at another compute budget.
        progress: called after each batch with its number of images.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    logits, margins, opened = [], [], []
    for batch in dataset.ordered(batch_size):
        output = network(batch.images.to(device), gate_offset)
        logits.append(output.logits.float().cpu())
        margins.append(output.margins.cpu())
        opened.append(output.open.cpu() > 0)
        if progress is not None:
            progress(len(batch.classes))
    network.train(was_training)
    structure = Structure.of_config(network.config)
    executed = structure.executed(torch.cat(opened).numpy())
    classes = dataset.examples.classes[dataset.indices]
    return Evaluation(
        labels=structure.labels,
        block_names=structure.block_names,
        classes=classes,
        guesses=guesses(torch.cat(logits).numpy(), classes),
        executed=executed,
        margins=torch.cat(margins).numpy(),
        mac_share=structure.mac_share(executed),
    )


def _number(value: float) -> float | None:
    """A number that JSON has: None for what is none."""
    return None if np.isnan(value) else float(value)
