"""What a classifier answers to chosen images, batch by batch: only the answers stay in memory, never the images."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from artifact.preprocessing import Preprocessing, UInt8Array
from models.classification import Guesses, guesses
from models.classifier import Classifier
from models.evaluation import Evaluation
from models.examples import Examples

Progress = Callable[[int], object]
"""Called after each batch with its number of images."""

Work = Callable[[np.ndarray, UInt8Array], tuple[np.ndarray, ...]]
"""From the positions (N,) of a batch among the images and its pixels (N, H, W, 3) to arrays with N rows each."""


@dataclass(frozen=True)
class Images:
    """Chosen examples, decoded and fitted when they are asked for."""

    examples: Examples
    indices: np.ndarray
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def classes(self) -> np.ndarray:
        """(N,) true classes."""
        return self.examples.classes[self.indices]

    def name(self, position: int) -> str:
        """The name of the image at a position, the same wherever the data lies."""
        return self.examples.names[self.indices[position]]

    def pixels(self, positions: np.ndarray) -> UInt8Array:
        """Pixels as the service would see them, (N, H, W, 3).

        Raises:
            DataError: an image cannot be decoded.
        """
        return np.stack([self.examples.fitted(self.indices[position], self.preprocessing) for position in positions])

    def spread(self, most: int) -> np.ndarray:
        """Positions of at most `most` images, evenly spread over all and so, as they are sorted, over the classes."""
        count = min(most, len(self))
        return np.arange(count) * len(self) // max(1, count)


@dataclass(frozen=True)
class Answers:
    """An evaluation and, of each image, the cross-entropy of its true class in nats, (N,): how hard it was."""

    evaluation: Evaluation
    losses: np.ndarray


def run_over(
    images: Images,
    positions: np.ndarray,
    work: Work,
    batch_size: int,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[np.ndarray, ...]:
    """Do `work` on every batch of the images at `positions`, on as many threads; return its arrays, joined in order."""
    batches = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]

    def finish(batch: np.ndarray) -> tuple[np.ndarray, ...]:
        arrays = work(batch, images.pixels(batch))
        if progress is not None:
            progress(len(batch))
        return arrays

    pool = ThreadPoolExecutor(workers, thread_name_prefix="evaluate")
    try:
        results = list(pool.map(finish, batches))
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure, or an interrupt, the rest need not be done
    return tuple(np.concatenate(arrays) for arrays in zip(*results, strict=True))


def logits_of(classifier: Classifier, images: Images, progress: Progress | None = None) -> np.ndarray:
    """Logits (N, classes) of all images.

    Raises:
        DataError: an image cannot be decoded.
    """

    def work(_: np.ndarray, pixels: UInt8Array) -> tuple[np.ndarray, ...]:
        return (classifier.run(pixels)[0],)

    (logits,) = run_over(images, np.arange(len(images)), work, classifier.batch_size, classifier.workers, progress)
    return logits


def answer(
    classifier: Classifier, images: Images, gate_offset: float = 0.0, progress: Progress | None = None
) -> Answers:
    """Run the classifier over all images, of which there must be some, in float32.

    Raises:
        DataError: an image cannot be decoded.
        ValueError: the classifier answers with logits or margins that are not finite.
    """
    structure, classes = classifier.structure, images.classes

    def work(positions: np.ndarray, pixels: UInt8Array) -> tuple[np.ndarray, ...]:
        logits, margins = classifier.run(pixels, gate_offset)
        finite = np.isfinite(logits).all(axis=1) & np.isfinite(margins).all(axis=1)
        if not finite.all():
            name = images.name(positions[finite.argmin()])
            raise ValueError(f"{structure.name} answers to {name} with logits or margins that are not finite")
        return *guesses(logits, classes[positions]), cross_entropy(logits, classes[positions]), margins

    positions = np.arange(len(images))
    *guessed, losses, margins = run_over(images, positions, work, classifier.batch_size, classifier.workers, progress)
    executed = structure.executed(structure.opened(margins, gate_offset))
    evaluation = Evaluation(
        labels=structure.labels,
        block_names=structure.block_names,
        classes=classes,
        guesses=Guesses(*guessed),
        executed=executed,
        margins=margins,
        mac_share=structure.mac_share(executed),
    )
    return Answers(evaluation, losses)


def cross_entropy(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Cross-entropy in nats, (N,), of logits (N, C) with the true classes (N,)."""
    logits = logits.astype(np.float64)
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return total - logits[np.arange(len(logits)), classes]
