"""Measures what a network does at other compute budgets, on images whose classes are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from artifact.agreement import Run
from artifact.budgets import Accuracy, Budget, BudgetCurve
from artifact.gating import Gating
from artifact.manifest import ALWAYS, NEVER
from models.answers import Images
from models.intervals import share

# An interval of the accuracy is within 7 points of it with these; of fewer, nothing should be promised.
FEWEST_IMAGES = 200
_BATCH = 250
# Shares of the multiply-accumulates to have a budget for, and by how much to stay below them: other images differ.
_STEP, _BELOW = 0.025, 0.003
# Gate offsets are looked for on so many of the images.
_SEARCHED = 1000
_QUANTILES = np.linspace(0.02, 0.98, 25)


def measure_budgets(run: Run, gating: Gating, images: Images) -> BudgetCurve | None:
    """Find gate offsets for shares of the multiply-accumulates and measure them; None without gates.

    Args:
        run: the exported network, of which what is skipped takes no time.
        gating: of the network.
        images: that training did not see, `FEWEST_IMAGES` at least.

    Raises:
        DataError: an image cannot be decoded.
    """
    if not gating.gated.size:
        return None
    offsets = _offsets(run, gating, images)
    predicted, shares = _answers(run, gating, images, np.arange(len(images)), offsets, "budgets")
    right = predicted == images.classes  # (offsets, N)
    rows = [
        Budget(
            gate_offset=offset,
            mac_share=float(shares[at].mean()),
            mac_share_p95=float(np.quantile(shares[at], 0.95)),
            accuracy=Accuracy(**share(right[at])._asdict()),
            same_as_full=float((predicted[at] == predicted[-1]).mean()),
        )
        for at, offset in enumerate(offsets)
    ]
    return BudgetCurve(images=len(images), rows=tuple(rows))


def _offsets(run: Run, gating: Gating, images: Images) -> list[float]:
    """Gate offsets, rising: all closed, some that spend about a multiple of `_STEP`, none, and all open."""
    positions = images.spread(_SEARCHED)
    first = images.preprocessing.normalise(images.pixels(positions[:_BATCH]))
    _, margins = run(first, np.zeros(len(first), np.float32))
    reached = gating.reached(gating.executed(gating.opened(margins)))
    tried = np.unique(np.quantile(gating.gate_threshold - margins[reached], _QUANTILES)).tolist()
    tried = [NEVER, *tried, ALWAYS]
    _, shares = _answers(run, gating, images, positions, tried, "gate offsets")
    spent = np.maximum.accumulate(shares.mean(axis=1))
    wanted = np.arange(_STEP, 1, _STEP) - _BELOW
    found = np.interp(wanted[(wanted > spent[1]) & (wanted < spent[-2])], spent[1:-1], tried[1:-1])
    return sorted({NEVER, *(float(f"{offset:.4g}") for offset in found), 0.0, ALWAYS})


def _answers(
    run: Run, gating: Gating, images: Images, positions: np.ndarray, offsets: Sequence[float], title: str
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and shares of the multiply-accumulates, (offsets, N) each."""
    predicted, shares = np.empty((2, len(offsets), len(positions)))
    with tqdm(desc=title, total=len(positions), unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(positions), _BATCH):
            batch = images.preprocessing.normalise(images.pixels(positions[start : start + _BATCH]))
            rows = slice(start, start + len(batch))
            for at, offset in enumerate(offsets):
                given = np.full(len(batch), offset, np.float32)
                logits, margins = run(batch, given)
                predicted[at, rows] = logits.argmax(axis=1)
                shares[at, rows] = gating.spent_macs(gating.executed(gating.opened(margins, given))) / gating.total_macs
            bar.update(len(batch))
    return predicted, shares
