"""The target-rate loss and the total training loss; the loss of budgets is in `models.budgets`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Weight of the target-rate loss against the classification loss, as in the published CIFAR script.
TARGET_WEIGHT = 2.0


class Loss(NamedTuple):
    """The total and its two parts; each a scalar tensor."""

    total: Tensor
    classification: Tensor
    compute: Tensor


def target_rate_loss(gates: Tensor, targets: Tensor) -> Tensor:
    """Mean over the gated blocks of (execution rate in the batch - target rate)^2 (paper, section 3.4).

    Args:
        gates: (N, G) hard decisions, 1.0 where the block ran.
        targets: (G,) target rate of each gated block.

    Returns:
        A scalar; zero where there are no gates.
    """
    if gates.shape[1] == 0:
        return gates.new_zeros(())
    rates = gates.mean(dim=0)  # (G,)
    return torch.mean((rates - targets) ** 2)


def total_loss(
    logits: Tensor, classes: Tensor, compute: Tensor, target_weight: float = TARGET_WEIGHT, label_smoothing: float = 0.0
) -> Loss:
    """Cross-entropy plus `target_weight` times the loss that holds the gates to their target.

    Args:
        logits: (N, classes) of the network in training mode.
        classes: (N,) index of each image's class.
        compute: the target-rate loss, or that of budgets.
    """
    classification = F.cross_entropy(logits.float(), classes, label_smoothing=label_smoothing)
    return Loss(classification + target_weight * compute, classification, compute)
