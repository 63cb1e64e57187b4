"""Measurements written by hand, for sections to describe."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from artifact.preprocessing import Preprocessing
from models.answers import Answers, Images
from models.checkpoint import Checkpoint
from models.classifier import TrainedClassifier
from models.config import ModelConfig
from models.evaluation import Evaluation
from models.examples import Examples
from models.report.budgets import Budget
from models.report.measurements import Attacks, Measurements
from models.report.response import Response
from models.report.subject import Groups, Subject
from models.resnet import AdaptiveResNet
from tests.guesses import guessed

LABELS = ("cat", "dog", "eel", "fox")


def network_config(gated: bool = True) -> ModelConfig:
    """Four blocks in two stages, the first without a gate."""
    rate = 0.5 if gated else 1.0
    return ModelConfig(
        name="by hand",
        stem="cifar",
        block="basic",
        stage_blocks=(2, 2),
        stage_widths=(4, 8),
        target_rates=(1.0, rate, rate, rate),
        labels=LABELS,
        preprocessing=Preprocessing(resize=16, crop=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    )


def subject_of(images: int, groups: Groups | None = None, gated: bool = True, each_sampled: int = 1) -> Subject:
    """A subject with so many images, class by class in turn; nothing is ever run."""
    network = AdaptiveResNet(network_config(gated))
    classifier = TrainedClassifier(Checkpoint(network.config, network.state_dict()), torch.device("cpu"))
    classes = np.arange(images) % len(LABELS)
    grey = Image.new("RGB", (16, 16), "grey")
    names = [f"{LABELS[label]}/{index:04d}.png" for index, label in enumerate(classes)]
    examples = Examples(LABELS, classes, names, lambda _: grey)
    chosen = Images(examples, np.arange(images), network.config.preprocessing)
    return Subject(classifier, chosen, chosen.spread(images // each_sampled), groups=groups or {}, context="by hand")


def measured(
    subject: Subject,
    opened: Callable[[int, int], tuple[bool, ...]],
    right: Callable[[int], bool] = lambda _: True,
    loss: Callable[[int], float] = float,
    margin: float = 1.0,
) -> Measurements:
    """What a network would be measured to do.

    Args:
        opened: which of its three gates open for an image and its class.
        right: whether an image is classified correctly.
        loss: how hard an image is.
        margin: how far all margins are from 0.
    """
    structure, classes = subject.classifier.structure, subject.images.classes
    gates = [opened(index, int(label)) for index, label in enumerate(classes)]
    decisions = np.array(gates, bool)[:, : len(structure.gated)]
    executed = structure.executed(decisions)
    hits = np.array([right(index) for index in range(len(classes))])
    evaluation = Evaluation(
        labels=structure.labels,
        block_names=structure.block_names,
        classes=classes,
        guesses=guessed(np.where(hits, classes, (classes + 1) % len(LABELS)), classes),
        executed=executed,
        margins=np.where(decisions, margin, -margin).astype(np.float32),
        mac_share=structure.mac_share(executed),
    )
    losses = np.array([loss(index) for index in range(len(classes))])
    unchanged = response("mirrored", len(classes), gates=len(structure.gated))
    return Measurements(Answers(evaluation, losses), [], [unchanged])


def response(name: str, images: int, wrong: int = 0, turned: int = 0, changed: int = 0, gates: int = 3) -> Response:
    """A change after which the first so many images are wrong, turned, or have one gate changed."""
    index = np.arange(images)
    return Response(name, index >= wrong, index < turned, (index < changed).astype(int), gates)


def budget(offset: float, images: int, right: int, mac_share: float) -> Budget:
    """An offset at which the first so many images are right, each at the same cost."""
    return Budget(offset, np.arange(images) < right, np.full(images, mac_share), np.full(images, 2))


def attacks(images: int, wrong: tuple[int, ...], wrong_ungated: tuple[int, ...] = ()) -> Attacks:
    """Attacks after which so many images are wrong, at strength 0 and each of four others."""
    names = [f"ε = {strength}" for strength in (0, 1, 2, 4, 8)]
    return Attacks(
        gated=[response(name, images, count, count, 2 * count) for name, count in zip(names, wrong, strict=True)],
        by_chance=[response(name, images, wrong[0]) for name in names],
        ungated=[response(name, images, count, gates=0) for name, count in zip(names, wrong_ungated, strict=False)],
    )
