"""The fast gradient sign attack (Goodfellow et al. 2015): every value moves one small step the way that hurts.

A gate's decision is a step function, so no gradient passes it. The gradient is that of the path the image takes:
through the residual branches that were executed and the shortcuts, with the gates held as they decided; the paper
attacks its deterministic gates too (section 4). On the changed image the gates decide anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from artifact.preprocessing import UInt8Array
from models.answers import Images, Progress, run_over
from models.classifier import TrainedClassifier
from models.report.response import Response

# Of 255. Powers of two, from a step nobody sees to one that is plain to see.
STRENGTHS = (1, 2, 4, 8)
# Gradients need the features of every layer of every image of a batch in memory.
_BATCH_SIZE = 64

Directions = Callable[[UInt8Array, np.ndarray], np.ndarray]
"""From pixels (N, H, W, 3) and the positions (N,) of their images to a sign (-1, 0 or 1) for every value."""


def gradient_directions(classifier: TrainedClassifier, images: Images, gate_offset: float = 0.0) -> Directions:
    """Directions in which the cross-entropy of the true class grows."""
    classes = images.classes

    def directions(pixels: UInt8Array, positions: np.ndarray) -> np.ndarray:
        batch = classifier.input(pixels).requires_grad_()
        logits = classifier.network(batch, gate_offset).logits
        truth = torch.from_numpy(classes[positions]).to(logits.device)
        loss = F.cross_entropy(logits, truth, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, batch)
        # Normalising scales each channel by a positive number, so the signs are those for pixels.
        return gradient.sign().permute(0, 2, 3, 1).cpu().numpy()

    return directions


def random_directions(images: Images) -> Directions:
    """Directions by chance, the same for an image whatever the batch: as large a change as the attack, without aim."""

    def directions(pixels: UInt8Array, positions: np.ndarray) -> np.ndarray:
        signs = [
            np.random.default_rng(int(index)).integers(0, 2, pixels.shape[1:]) * 2 - 1
            for index in images.indices[positions]
        ]
        return np.stack(signs)

    return directions


def moved(pixels: UInt8Array, directions: np.ndarray, strength: int) -> UInt8Array:
    """Pixels moved by `strength` of 255 along the directions, clipped to what an image can hold."""
    return (pixels + strength * directions.astype(np.int16)).clip(0, 255).astype(np.uint8)


def attack(
    classifier: TrainedClassifier,
    images: Images,
    positions: np.ndarray,
    directions: Directions,
    gate_offset: float = 0.0,
    strengths: Sequence[int] = STRENGTHS,
    progress: Progress | None = None,
) -> list[Response]:
    """Move the images at `positions` at every strength and ask the network again; the first strength is 0."""
    structure, classes = classifier.structure, images.classes

    def work(batch: np.ndarray, pixels: UInt8Array) -> tuple[np.ndarray, ...]:
        signs = directions(pixels, batch)
        predicted, opened = [], []
        for strength in (0, *strengths):
            logits, margins = classifier.run(moved(pixels, signs, strength), gate_offset)
            predicted.append(logits.argmax(axis=1))
            opened.append(structure.opened(margins, gate_offset))
        changed = [(gates != opened[0]).sum(axis=1) for gates in opened]
        return np.stack(predicted, axis=1), np.stack(changed, axis=1)  # (N, 1 + strengths) each

    batch_size = min(_BATCH_SIZE, classifier.batch_size)
    predicted, changed = run_over(images, positions, work, batch_size, progress=progress)
    return [
        Response(
            name=f"ε = {strength}",
            correct=predicted[:, column] == classes[positions],
            turned=predicted[:, column] != predicted[:, 0],
            changed_gates=changed[:, column],
            gates=len(structure.gated),
        )
        for column, strength in enumerate((0, *strengths))
    ]
