"""Whether two ways of running a network agree, told in terms of margins.

A gate whose margin lies within a small tolerance of its threshold may fall either way by rounding; everywhere else the
decisions must be the same, and along the same path so must margins and logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from artifact.gating import Gating
from artifact.preprocessing import Float32Array

# Relative to the largest margin of the gate, or the largest logit, in the batch where that is above 1, since float32
# rounds in proportion. Measured differences of trained networks are below 1e-5; these leave room for other processors
# and deeper networks, and are still far below the margins' spread and the gaps between logits.
MARGIN_TOLERANCE = 1e-3
LOGIT_TOLERANCE = 1e-3

# Fewer bits than float32 has round so much that decisions near a threshold fall differently; of all, these must not.
LEAST_EQUAL_GATES, LEAST_EQUAL_PREDICTIONS = 0.98, 0.95
# So few different decisions say nothing: a cascade of two networks has one gate an image.
_FEW_GATES = 3

LogitsAndMargins = tuple[Float32Array, Float32Array]
"""(N, classes) logits and (N, G) margins."""

Run = Callable[[Float32Array, Float32Array], LogitsAndMargins]
"""Runs images (N, 3, H, W) with gate offsets (N,)."""


@dataclass
class Agreement:
    """What was compared so far.

    Attributes:
        images: how many.
        same_path: of these, those on which every gate decided alike.
        same_prediction: of these, those with the same highest logit.
        gates: decisions compared while all before them agreed, away from the threshold.
        near_threshold: decisions within the tolerance of the threshold, which may fall either way.
        different_gates: decisions that differ, wherever their margins lie, while all before them agreed.
        margin_difference, logit_difference: the largest, relative as told above.
        problems: what may not be.
    """

    images: int = 0
    same_path: int = 0
    same_prediction: int = 0
    gates: int = 0
    near_threshold: int = 0
    different_gates: int = 0
    margin_difference: float = 0.0
    logit_difference: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def equal_gates(self) -> float:
        """Share of the comparable decisions that were the same, 1 for a network without gates."""
        comparable = self.gates + self.near_threshold
        return 1 - self.different_gates / comparable if comparable else 1.0

    @property
    def equal_predictions(self) -> float:
        """Share of the images with the same prediction."""
        return self.same_prediction / self.images if self.images else 1.0

    def low_precision_problem(self, least_equal_predictions: float = LEAST_EQUAL_PREDICTIONS) -> str | None:
        """What is wrong even for a runtime that computes with fewer bits, which only has to agree nearly always."""
        if not self.images:
            return self.problems[0] if self.problems else None
        if not np.isfinite([self.logit_difference, self.margin_difference]).all():
            return "some answers are not numbers"
        gates, predictions = self.equal_gates, self.equal_predictions
        too_many = gates < LEAST_EQUAL_GATES and self.different_gates > _FEW_GATES
        if too_many or predictions < least_equal_predictions:
            return f"{gates:.1%} of the gates and {predictions:.1%} of the predictions are those of the export"
        return None

    def compare(
        self,
        scenario: str,
        expected: LogitsAndMargins,
        actual: LogitsAndMargins,
        offsets: Float32Array,
        gating: Gating,
    ) -> None:
        """Compare one batch, run with gate offsets (N,), and note what differs; `scenario` names it in a problem."""
        (expected_logits, expected_margins), (logits, margins) = expected, actual
        same_shapes = logits.shape == expected_logits.shape and margins.shape == expected_margins.shape
        if not same_shapes or margins.shape[1] != gating.gated.size:
            self.problems.append(f"{scenario}: shapes {logits.shape} and {margins.shape}")
            return
        distance = expected_margins + offsets[:, None] - np.float32(gating.gate_threshold)  # (N, G), from the threshold
        expected_opened = gating.opened(expected_margins, offsets)
        differs = expected_opened != gating.opened(margins, offsets)
        # A gate is comparable while all decisions before it agree: after a different one the image is on another path.
        reached = gating.reached(gating.executed(expected_opened))
        comparable = (np.cumsum(differs, axis=1) - differs == 0) & reached
        margin_scale = np.abs(expected_margins).max(axis=0, initial=1)  # (G,)
        logit_scale = np.abs(expected_logits).max(initial=1)
        near = np.abs(distance) <= MARGIN_TOLERANCE * margin_scale
        same_path = ~differs.any(axis=1)
        with np.errstate(invalid="ignore"):  # infinity - infinity is NaN, which is refused below
            margin_difference = float((np.abs(margins - expected_margins) / margin_scale)[comparable].max(initial=0))
            logit_difference = float((np.abs(logits - expected_logits) / logit_scale)[same_path].max(initial=0))
        self.images += len(logits)
        self.same_path += int(same_path.sum())
        self.same_prediction += int((logits.argmax(axis=1) == expected_logits.argmax(axis=1)).sum())
        self.gates += int((comparable & ~near).sum())
        self.near_threshold += int((comparable & near).sum())
        self.different_gates += int((comparable & differs).sum())
        # Unlike max, np.maximum keeps a NaN.
        self.margin_difference = float(np.maximum(self.margin_difference, margin_difference))
        self.logit_difference = float(np.maximum(self.logit_difference, logit_difference))
        if wrong := int((differs & comparable & ~near).sum()):
            self.problems.append(f"{scenario}: {wrong} gates decide differently")
        # `not <=` also catches NaN.
        if not margin_difference <= MARGIN_TOLERANCE:
            self.problems.append(f"{scenario}: a margin differs by {margin_difference:.2g}")
        if not logit_difference <= LOGIT_TOLERANCE:
            self.problems.append(f"{scenario}: a logit differs by {logit_difference:.2g}")
