"""What evaluating a network needs to know of it besides its answers: its blocks, its gates and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from artifact.manifest import Manifest
from artifact.preprocessing import Preprocessing
from models.config import ModelConfig
from models.macs import count_macs


@dataclass(frozen=True)
class Structure:
    """A network of B blocks, of which G are gated.

    Attributes:
        name: of the network.
        labels: class names, in the order of the logits.
        preprocessing: from a decoded image to the network's input.
        block_names: of all B blocks, in order.
        gated: (G,) positions of the gated blocks, in the order of the margins.
        residual_macs: (B,) MACs that skipping each block saves.
        total_macs: with every block executed, gates included.
        ungated_macs: of the same network without gates.
        gate_threshold: a gate is open where margin + offset is above it.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    block_names: tuple[str, ...]
    gated: np.ndarray
    residual_macs: np.ndarray
    total_macs: int
    ungated_macs: int
    gate_threshold: float = 0.0

    @classmethod
    def of_config(cls, config: ModelConfig) -> Structure:
        """The structure of the network that `config` describes."""
        macs = count_macs(config)
        return cls(
            name=config.name,
            labels=config.labels,
            preprocessing=config.preprocessing,
            block_names=tuple(macs.blocks),
            gated=np.flatnonzero([block.gate > 0 for block in macs.blocks.values()]),
            residual_macs=np.array([block.residual for block in macs.blocks.values()]),
            total_macs=macs.total,
            ungated_macs=macs.ungated,
        )

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Structure:
        """The structure of an exported network."""
        return cls(
            name=manifest.name,
            labels=manifest.labels,
            preprocessing=manifest.preprocessing,
            block_names=tuple(block.name for block in manifest.blocks),
            gated=np.array(manifest.gated_indices, int),
            residual_macs=np.array([block.macs for block in manifest.blocks]),
            total_macs=manifest.total_macs,
            ungated_macs=manifest.ungated_macs,
            gate_threshold=manifest.gate_threshold,
        )

    def opened(self, margins: np.ndarray, gate_offset: float = 0.0) -> np.ndarray:
        """Which gates opened, (N, G), told from their margins (N, G) float32 as the network tells it."""
        return margins + np.float32(gate_offset) > np.float32(self.gate_threshold)

    def executed(self, opened: np.ndarray) -> np.ndarray:
        """Which blocks ran, (N, B), from which gates opened, (N, G)."""
        executed = np.ones((len(opened), len(self.block_names)), bool)
        executed[:, self.gated] = opened
        return executed

    def mac_share(self, executed: np.ndarray) -> np.ndarray:
        """MACs spent, gates included, over those of the same network without gates, (N,)."""
        return (self.total_macs - ~executed @ self.residual_macs) / self.ungated_macs
