"""What evaluating a network needs to know of it besides its answers: its blocks, its gates and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from artifact.gating import Gating
from artifact.manifest import Manifest
from artifact.preprocessing import Preprocessing
from models.config import ModelConfig
from models.macs import count_macs


@dataclass(frozen=True, kw_only=True)
class Structure(Gating):
    """A network of B blocks, of which some are gated.

    Attributes:
        name: of the network.
        labels: class names, in the order of the logits.
        preprocessing: from a decoded image to the network's input.
        block_names: of all B blocks, in order.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    block_names: tuple[str, ...]

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
            **vars(manifest.gating),
        )
