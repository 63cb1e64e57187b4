"""The same network at other compute budgets, by adding an offset to all margins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from artifact.preprocessing import UInt8Array
from models.answers import Images, Progress, run_over
from models.classifier import Classifier

# Beyond any margin: all gates closed, all gates open.
_FAR = 1e9
_OPEN_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Budget:
    """What N images cost and get at one gate offset.

    Attributes:
        gate_offset: added to all margins.
        correct: (N,) whether the image is classified correctly.
        mac_share: (N,) MACs spent over those of the same network without gates.
        executed_blocks: (N,) how many blocks ran.
    """

    gate_offset: float
    correct: np.ndarray
    mac_share: np.ndarray
    executed_blocks: np.ndarray

    @property
    def decides_for_all(self) -> bool:
        """Whether the offset is beyond all margins."""
        return abs(self.gate_offset) >= _FAR

    @property
    def label(self) -> str:
        """The offset, or what an offset beyond all margins does."""
        if self.decides_for_all:
            return "all gates open" if self.gate_offset > 0 else "all gates closed"
        return f"{self.gate_offset:+g}" if self.gate_offset else "0"


def budget_offsets(margins: np.ndarray, gate_threshold: float, gate_offset: float) -> list[float]:
    """Offsets, rising, at which about 10 to 90% of the gates open, none and all of them, and `gate_offset` itself.

    Args:
        margins: of the gates that were reached, without offset. An offset changes paths, and with them later margins,
            hence "about".
    """
    if not margins.size:
        return []
    offsets = {float(f"{gate_threshold - np.quantile(margins, 1 - share):.2g}") for share in _OPEN_SHARES}
    return sorted(offsets | {-_FAR, _FAR, gate_offset})


def run_budgets(
    classifier: Classifier,
    images: Images,
    positions: np.ndarray,
    offsets: list[float],
    progress: Progress | None = None,
) -> list[Budget]:
    """Run the images at `positions` at every offset."""
    structure, classes = classifier.structure, images.classes

    def work(batch: np.ndarray, pixels: UInt8Array) -> tuple[np.ndarray, ...]:
        correct, shares, blocks = [], [], []
        for offset in offsets:
            logits, margins = classifier.run(pixels, offset)
            executed = structure.executed(structure.opened(margins, offset))
            correct.append(logits.argmax(axis=1) == classes[batch])
            shares.append(structure.mac_share(executed))
            blocks.append(executed.sum(axis=1))
        return np.stack(correct, axis=1), np.stack(shares, axis=1), np.stack(blocks, axis=1)  # (N, offsets) each

    if not offsets:
        return []
    correct, shares, blocks = run_over(images, positions, work, classifier.batch_size, classifier.workers, progress)
    return [
        Budget(offset, correct[:, column], shares[:, column], blocks[:, column])
        for column, offset in enumerate(offsets)
    ]
