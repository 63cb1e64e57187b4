"""Networks in a row: the first answers for all images, each later one for those that the ones before are not sure of.

The networks that saw an image answer together, by the mean of their class probabilities. Whether the next one is asked
too is decided by a gate like any other. It is the sooner open, the closer the two largest logits so far lie:

    margin = sure_above - (largest logit - second largest logit)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from artifact.agreement import LogitsAndMargins, Run
from artifact.preprocessing import Float32Array


def run_cascade(
    networks: Sequence[Run],
    gates: Sequence[int],
    sure_above: Sequence[float],
    gate_threshold: float,
    images: Float32Array,
    offsets: Float32Array,
) -> LogitsAndMargins:
    """Classify images (N, 3, H, W) with gate offsets (N,).

    Args:
        networks: in the order they run.
        gates: how many each of them has of its own.
        sure_above: of each network but the first, see above.
        gate_threshold: a gate is open where margin + offset is above it.

    Returns:
        logits (N, classes), of images that several networks saw the logarithm of the mean probability; and margins
        (N, G): of the first network's gates, the gate before the second network, that network's gates, and so on. Where
        a gate is not reached, its margin is 0.
    """
    logits, first_margins = networks[0](images, offsets)
    margins = np.zeros((len(images), sum(gates) + len(sure_above)), np.float32)
    margins[:, : gates[0]] = first_margins
    asked, column = np.arange(len(images)), gates[0]
    for number, (run, sure) in enumerate(zip(networks[1:], sure_above, strict=True), 1):
        margin = np.float32(sure) - distance(logits[asked])  # (K,)
        margins[asked, column] = margin
        is_open = margin + offsets[asked] > np.float32(gate_threshold)
        if not is_open.any():
            break
        asked = asked[is_open]
        more_logits, more_margins = run(images[asked], offsets[asked])
        logits[asked] = together(logits[asked], number, more_logits)
        margins[asked, column + 1 : column + 1 + gates[number]] = more_margins
        column += 1 + gates[number]
    return logits, margins


def distance(logits: Float32Array) -> Float32Array:
    """By how much the largest of logits (N, classes) is above the second largest, (N,)."""
    two_largest: Float32Array = np.partition(logits, -2, axis=1)[:, -2:]
    return two_largest[:, 1] - two_largest[:, 0]


def together(logits: Float32Array, networks: int, more: Float32Array) -> Float32Array:
    """The logarithm of the mean probability, (N, classes), of so many networks and one more, by their logits."""
    before = log_probabilities(logits) + np.float32(np.log(networks))
    total: Float32Array = np.logaddexp(before, log_probabilities(more)) - np.float32(np.log(networks + 1))
    return total


def log_probabilities(logits: Float32Array) -> Float32Array:
    """Logarithms of the class probabilities, of logits (N, classes); unlike the probabilities, they never underflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms: Float32Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logarithms
