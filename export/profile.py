"""The profile of a network: how often each block runs for real images, gates as trained."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from artifact.manifest import ExecutionProfile
from artifact.preprocessing import Float32Array
from export.parity import eager_runner, gating_of
from models.cascade import Network

# The standard error of a rate is at most 0.05 with these; a profile of fewer would be mistaken for knowledge.
FEWEST_IMAGES = 100


def measure_profile(
    network: Network, batches: Iterable[Float32Array], gate_threshold: float = 0.0
) -> ExecutionProfile | None:
    """Count how often each block runs; None with fewer than `FEWEST_IMAGES` images.

    Args:
        network: in evaluation mode.
        batches: preprocessed images (N, 3, H, W).
        gate_threshold: of the exported gates.
    """
    run, gating = eager_runner(network, gate_threshold), gating_of(network, gate_threshold)
    images, executed = 0, np.zeros(len(gating.within), np.int64)
    for batch in batches:
        _, margins = run(batch, np.zeros(len(batch), np.float32))
        executed += np.count_nonzero(gating.executed(gating.opened(margins)), axis=0)
        images += len(batch)
    if images < FEWEST_IMAGES:
        return None
    return ExecutionProfile(images=images, rates=tuple((executed / images).tolist()))
