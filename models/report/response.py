"""How a network's answers and paths respond when its images are changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artifact.preprocessing import UInt8Array
from models import intervals
from models.answers import Images, Progress, run_over
from models.classifier import Classifier
from models.evaluation import Evaluation
from models.intervals import Estimate
from models.report.perturbations import Perturbation


@dataclass(frozen=True)
class Response:
    """What N changed images did to a network of G gates.

    Attributes:
        name: of the change.
        correct: (N,) whether the changed image is classified correctly.
        turned: (N,) whether its prediction is another one.
        changed_gates: (N,) how many gates decide otherwise.
        gates: G.
    """

    name: str
    correct: np.ndarray
    turned: np.ndarray
    changed_gates: np.ndarray
    gates: int

    @property
    def accuracy(self) -> Estimate:
        """Share of the changed images classified correctly."""
        return intervals.share(self.correct)

    @property
    def turned_share(self) -> Estimate:
        """Share of the images whose prediction changed."""
        return intervals.share(self.turned)

    @property
    def changed_gate_share(self) -> Estimate:
        """Mean share of an image's gates that changed; NaN without gates."""
        return intervals.mean(self.changed_gates / self.gates) if self.gates else Estimate(math.nan)

    @property
    def same_path_share(self) -> Estimate:
        """Share of the images on which no gate changed."""
        return intervals.share(self.changed_gates == 0)


def respond(
    classifier: Classifier,
    images: Images,
    answers: Evaluation,
    positions: np.ndarray,
    perturbations: Sequence[Perturbation],
    gate_offset: float = 0.0,
    progress: Progress | None = None,
) -> list[Response]:
    """Ask again about the images at `positions` after each perturbation; `answers` are those to all, unchanged."""
    structure = classifier.structure

    def work(batch: np.ndarray, pixels: UInt8Array) -> tuple[np.ndarray, ...]:
        before = answers.executed[batch][:, structure.gated]
        predicted, changed = [], []
        for perturbation in perturbations:
            logits, margins = classifier.run(perturbation.apply(pixels, images.indices[batch]), gate_offset)
            predicted.append(logits.argmax(axis=1))
            changed.append((structure.opened(margins, gate_offset) != before).sum(axis=1))
        return np.stack(predicted, axis=1), np.stack(changed, axis=1)  # (N, perturbations) each

    predicted, changed = run_over(images, positions, work, classifier.batch_size, classifier.workers, progress)
    return [
        Response(
            name=perturbation.name,
            correct=predicted[:, column] == answers.classes[positions],
            turned=predicted[:, column] != answers.guesses.predicted[positions],
            changed_gates=changed[:, column],
            gates=len(structure.gated),
        )
        for column, perturbation in enumerate(perturbations)
    ]
