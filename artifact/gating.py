"""Which gates open, which blocks run then, and what that costs: told from margins, in serving and evaluation alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from artifact.preprocessing import Float32Array

Decisions = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Gating:
    """Of a network of B blocks, of which G are gated.

    Attributes:
        gated: (G,) positions of the gated blocks, in the order of the margins.
        residual_macs: (B,) multiply-accumulates that skipping each block saves.
        total_macs: with every block executed, gates included.
        ungated_macs: of the same network without gates.
        gate_threshold: a gate is open where margin + offset is above it.
    """

    gated: npt.NDArray[np.intp]
    residual_macs: npt.NDArray[np.int64]
    total_macs: int
    ungated_macs: int
    gate_threshold: float = 0.0

    def opened(self, margins: Float32Array, offsets: Float32Array | float = 0.0) -> Decisions:
        """Which gates opened, (N, G), as the network tells it from margins (N, G) and offsets (N,), or one for all."""
        return margins + np.asarray(offsets, np.float32)[..., None] > np.float32(self.gate_threshold)

    def executed(self, opened: Decisions) -> Decisions:
        """Which blocks ran, (N, B), from which gates opened, (N, G)."""
        executed = np.ones((len(opened), len(self.residual_macs)), np.bool_)
        executed[:, self.gated] = opened
        return executed

    def spent_macs(self, executed: Decisions) -> npt.NDArray[np.int64]:
        """Multiply-accumulates spent on each image, (N,), from what was executed (N, B)."""
        return self.total_macs - (~executed @ self.residual_macs)

    def mac_share(self, executed: Decisions) -> npt.NDArray[np.float64]:
        """MACs spent, gates included, over those of the same network without gates, (N,)."""
        return self.spent_macs(executed) / self.ungated_macs
