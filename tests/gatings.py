"""Networks of which only the gates matter."""

from __future__ import annotations

import numpy as np

from artifact.gating import Gating


def gating_of_gates(count: int, gate_threshold: float = 0.0) -> Gating:
    """As many blocks, each with a gate."""
    return Gating(
        gated=np.arange(count),
        within=np.full(count, -1),
        skippable_macs=np.ones(count, np.int64),
        total_macs=count + 1,
        ungated_macs=count + 1,
        gate_threshold=gate_threshold,
    )
