"""The mean of a network's weights over the steps of its training, which is often better than the last of them."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from models.resnet import AdaptiveResNet


def running_mean(network: AdaptiveResNet, decay: float) -> AveragedModel:
    """An exponential mean of all weights and of the statistics of batch norms, which begins with those of today."""
    return AveragedModel(network, avg_fn=partial(_towards, decay), use_buffers=True)


def _towards(decay: float, mean: Tensor, value: Tensor, averaged: Tensor | int) -> Tensor:
    """The mean with one more value. The first values count for more, as the mean has nothing else to hold on to."""
    kept = min(decay, (1 + int(averaged)) / (10 + int(averaged)))
    return kept * mean + (1 - kept) * value
