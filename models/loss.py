"""The target-rate loss and the total training loss; the loss of budgets is in `models.budgets`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.resnet import Output

# Temperature at which teacher and student are compared: above 1 the less probable classes tell more.
_TEMPERATURE = 2.0
# Of a teacher's features: where they hardly differ between images, they tell nothing.
_LEAST_VARIANCE = 1e-6

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


def balanced_weights(classes: Tensor, count: int) -> Tensor:
    """Weights (count,) with which all classes of images (N,) weigh alike, and all images together N.

    A class without images counts as if it had one.
    """
    images = torch.bincount(classes, minlength=count).clamp(min=1)
    return len(classes) / (count * images)


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of the network's answers from a teacher's, at a temperature of 2 (Hinton et al. 2015, section 2).

    It is multiplied by the temperature's square, so that its gradient is of the size that cross-entropy has.

    Args:
        logits: (N, classes) of the network.
        teacher: (N, classes) of the teacher, without gradient.
    """
    own, wanted = (F.log_softmax(each.float() / _TEMPERATURE, dim=1) for each in (logits, teacher))
    return F.kl_div(own, wanted, reduction="batchmean", log_target=True) * _TEMPERATURE**2


def feature_distance(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference from a teacher's features, as a share of their variance over the images.

    It tells far more than the answers do where classes are few (Romero et al. 2015, "FitNets", for hidden layers).

    Args:
        features: (N, channels) that the network's classifier sees, N > 1.
        teacher: (N, channels) of the teacher, without gradient.

    Returns:
        A scalar: 0 where they are the same, about 1 where the network sees the same in all images.
    """
    variance = teacher.float().var(dim=0).mean()
    return torch.mean((features.float() - teacher.float()) ** 2) / variance.clamp(min=_LEAST_VARIANCE)


def total_loss(
    output: Output,
    classes: Tensor,
    compute: Tensor,
    target_weight: float = TARGET_WEIGHT,
    label_smoothing: float = 0.0,
    teacher: Output | None = None,
    distillation: float = 0.0,
    feature_weight: float = 0.0,
    class_weights: Tensor | None = None,
) -> Loss:
    """Classification loss plus `target_weight` times the loss that holds the gates to their target.

    Args:
        output: of the network in training mode.
        classes: (N,) index of each image's class, or (N, classes) shares of them.
        compute: the target-rate loss, or that of budgets.
        target_weight: of that loss.
        label_smoothing: of the cross-entropy.
        teacher: what a teacher says about the same images.
        distillation: share of the classification loss that is the distance from the teacher's answers; the rest is
            cross-entropy.
        feature_weight: of the distance from the teacher's features, beside that.
        class_weights: (classes,) of the cross-entropy.
    """
    classification = F.cross_entropy(output.logits.float(), classes, class_weights, label_smoothing=label_smoothing)
    if teacher is not None:
        from_answers = distillation_loss(output.logits, teacher.logits)
        classification = (1 - distillation) * classification + distillation * from_answers
        if feature_weight:
            classification = classification + feature_weight * feature_distance(output.features, teacher.features)
    return Loss(classification + target_weight * compute, classification, compute)
