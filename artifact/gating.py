"""Which gates open, which blocks run then, and what that costs: told from margins, in serving and evaluation alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from artifact.preprocessing import Float32Array

Decisions = npt.NDArray[np.bool_]


class GatedPart(Protocol):
    """What the gating needs of a block; the attributes are those of `artifact.manifest.Block`."""

    @property
    def name(self) -> str: ...
    @property
    def gated(self) -> bool: ...
    @property
    def macs(self) -> int: ...
    @property
    def shortcut_macs(self) -> int: ...
    @property
    def gate_macs(self) -> int: ...
    @property
    def within(self) -> str | None: ...


# Arrays cannot be compared as fields are; and what keeps one, as a manifest does, must stay comparable.
@dataclass(frozen=True, kw_only=True, eq=False)
class Gating:
    """Of a network of B blocks, of which G are gated.

    Attributes:
        gated: (G,) positions of the gated blocks, in the order of the margins.
        within: (B,) position of the block that has to run for each block to be reached; -1 where every image comes by.
        skippable_macs: (B,) multiply-accumulates that skipping each block saves, besides those of blocks within it.
        total_macs: with every block executed, gates included.
        ungated_macs: of the same network without gates.
        gate_threshold: a gate is open where margin + offset is above it.
    """

    gated: npt.NDArray[np.intp]
    within: npt.NDArray[np.intp]
    skippable_macs: npt.NDArray[np.int64]
    total_macs: int
    ungated_macs: int
    gate_threshold: float = 0.0

    @classmethod
    def of_blocks(cls, blocks: Sequence[GatedPart], stem_and_classifier_macs: int, gate_threshold: float) -> Self:
        """The gating of a network of these blocks, in the order they run."""
        positions = {block.name: position for position, block in enumerate(blocks)}
        within = np.array([-1 if block.within is None else positions[block.within] for block in blocks], np.intp)
        skippable = np.array([block.macs for block in blocks], np.int64)
        always = np.array([block.shortcut_macs + block.gate_macs for block in blocks], np.int64)
        gates = sum(block.gate_macs for block in blocks)
        total = stem_and_classifier_macs + int(skippable.sum() + always.sum())
        inner = np.flatnonzero(within >= 0)
        np.add.at(skippable, within[inner], always[inner])
        return cls(
            gated=np.flatnonzero([block.gated for block in blocks]),
            within=within,
            skippable_macs=skippable,
            total_macs=total,
            ungated_macs=total - gates,
            gate_threshold=gate_threshold,
        )

    def opened(self, margins: Float32Array, offsets: Float32Array | float = 0.0) -> Decisions:
        """Which gates opened, (N, G), as the network tells it from margins (N, G) and offsets (N,), or one for all.

        Of gates that were not reached, whose margin is 0, this says nothing; see `reached`.
        """
        return margins + np.asarray(offsets, np.float32)[..., None] > np.float32(self.gate_threshold)

    def executed(self, opened: Decisions) -> Decisions:
        """Which blocks ran, (N, B), from which gates opened, (N, G)."""
        executed = np.ones((len(opened), len(self.skippable_macs)), np.bool_)
        executed[:, self.gated] = opened
        for outer, inner in self._nested:
            executed[:, inner] &= executed[:, outer, None]
        return executed

    def reached(self, executed: Decisions) -> Decisions:
        """Which gates were asked, (N, G), from what was executed (N, B)."""
        outer = self.within[self.gated]
        return executed[:, outer] | (outer < 0)

    def spent_macs(self, executed: Decisions) -> npt.NDArray[np.int64]:
        """Multiply-accumulates spent on each image, (N,), from what was executed (N, B)."""
        return self.total_macs - (~executed @ self.skippable_macs)

    @cached_property
    def _nested(self) -> list[tuple[int, npt.NDArray[np.intp]]]:
        """Positions of blocks and of those within them, from the outermost in."""
        return [(int(outer), np.flatnonzero(self.within == outer)) for outer in np.unique(self.within) if outer >= 0]

    def mac_share(self, executed: Decisions) -> npt.NDArray[np.float64]:
        """MACs spent, gates included, over those of the same network without gates, (N,)."""
        return self.spent_macs(executed) / self.ungated_macs
