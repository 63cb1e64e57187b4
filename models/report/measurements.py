"""All the runs a report needs, one after the other, with a progress bar for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from models.answers import Answers, Progress, answer
from models.classifier import TrainedClassifier
from models.report.attack import attack, gradient_directions, random_directions
from models.report.budgets import Budget, budget_offsets, run_budgets
from models.report.perturbations import PERTURBATIONS
from models.report.response import Response, respond
from models.report.soft_gates import scaled_hits
from models.report.subject import Subject
from models.resnet import AdaptiveResNet


@dataclass(frozen=True)
class Attacks:
    """Responses by strength, the first of which is 0; `ungated` is empty where no such network can be attacked."""

    gated: list[Response]
    by_chance: list[Response]
    ungated: list[Response] = field(default_factory=list)


@dataclass(frozen=True)
class Measurements:
    """What was measured of a subject.

    Attributes:
        answers: to all images.
        budgets: on the sample, by rising offset.
        changes: on the sample.
        ungated_hits: (N,) whether the network without gates is right.
        scaled_hits: with every block executed and scaled, (N,) by kind of scale.
        attacks: on the sample.
    """

    answers: Answers
    budgets: list[Budget]
    changes: list[Response]
    ungated_hits: np.ndarray | None = None
    scaled_hits: dict[str, np.ndarray] = field(default_factory=dict)
    attacks: Attacks | None = None


def measure(subject: Subject, answers: Answers) -> Measurements:
    """Run everything of the subject that the report asks, beyond the answers to all images.

    Raises:
        DataError: an image cannot be decoded.
    """
    classifier, images, sample = subject.classifier, subject.images, subject.sample
    evaluation, threshold = answers.evaluation, classifier.structure.gate_threshold
    reached = classifier.structure.reached(evaluation.executed)
    offsets = budget_offsets(evaluation.margins[reached], threshold, subject.gate_offset)
    with _bar("compute budgets", len(sample)) as progress:
        budgets = run_budgets(classifier, images, sample, offsets, progress)
    with _bar("changed images", len(sample)) as progress:
        changes = respond(classifier, images, evaluation, sample, PERTURBATIONS, subject.gate_offset, progress)
    hits = None
    if subject.ungated is not None:
        with _bar("network without gates", len(images)) as progress:
            other = answer(subject.ungated, images, progress=progress).evaluation
            hits = other.correct
    scaled: dict[str, np.ndarray] = {}
    network = subject.trained.network if subject.trained else None
    # A cascade has no gates to soften: whether the next network is asked is no part of what the first one computes.
    if subject.trained and isinstance(network, AdaptiveResNet) and evaluation.margins.size:
        rates = evaluation.executed[:, classifier.structure.gated].mean(axis=0)
        with _bar("every block executed", len(images)) as progress:
            scaled = scaled_hits(subject.trained, network, images, rates, subject.trained_offset, progress)
    attacks = None if subject.trained is None else _attacks(subject, subject.trained)
    return Measurements(answers, budgets, changes, hits, scaled, attacks)


def _attacks(subject: Subject, trained: TrainedClassifier) -> Attacks:
    images, sample, offset = subject.images, subject.sample, subject.trained_offset
    with _bar("attack", len(sample)) as progress:
        gated = attack(trained, images, sample, gradient_directions(trained, images, offset), offset, progress=progress)
    with _bar("change by chance", len(sample)) as progress:
        by_chance = attack(trained, images, sample, random_directions(images), offset, progress=progress)
    ungated = subject.ungated
    if not isinstance(ungated, TrainedClassifier):
        return Attacks(gated, by_chance)
    with _bar("attack on the network without gates", len(sample)) as progress:
        directions = gradient_directions(ungated, images)
        return Attacks(gated, by_chance, attack(ungated, images, sample, directions, progress=progress))


@contextmanager
def _bar(description: str, total: int) -> Iterator[Progress]:
    with tqdm(desc=description, total=total, unit="image", leave=False, disable=None) as bar:
        yield bar.update
