"""The gate of a block: from the block's input to a decision, per image, whether the block runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Biases of the skip and the execute logit at the start: sigmoid(2.0 - 0.1) = 0.87, so about 85% of the gates open.
_SKIP_BIAS, _EXECUTE_BIAS = 0.1, 2.0


class Decision(NamedTuple):
    """What a gate decided for each image of a batch.

    Attributes:
        open: (N,) 1.0 where the block runs, else 0.0. In training its gradient is that of the relaxed sample.
        margin: (N,) execute logit - skip logit, without noise.
    """

    open: Tensor
    margin: Tensor


class Gate(nn.Module):
    """Global average pool, `hidden` units with batch norm and ReLU, two logits (skip, execute); paper, section 3.2.

    In training the decision is a hard Gumbel-softmax sample with a straight-through gradient (section 3.3), to whose
    execute logit the offset is added; in evaluation there is no noise and a gate is open exactly when its margin plus
    the offset is above 0.

    Attributes:
        noise: share of the Gumbel noise that training adds; the paper has 1. With 0 gates decide as in evaluation.
    """

    noise: float = 1.0

    def __init__(self, channels: int, hidden: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.bn = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, 2)
        nn.init.normal_(self.fc2.weight, std=0.001)
        with torch.no_grad():
            self.fc2.bias.copy_(torch.tensor([_SKIP_BIAS, _EXECUTE_BIAS]))

    def forward(self, x: Tensor, offset: Tensor | float = 0.0) -> Decision:
        """Decide for each image of x, (N, C, H, W); `offset`, a number or (N,), shifts the margins before that."""
        with _without_autocast(x.device.type):
            features = x.sum(dim=(2, 3), dtype=torch.float32) / (x.shape[2] * x.shape[3])  # (N, C)
            logits = self.fc2(F.relu(self.bn(self.fc1(features))))  # (N, 2)
            margin = logits[:, 1] - logits[:, 0]  # (N,)
            if self.training:
                # The softmax of two logits is the sigmoid of their difference, to which each brings its own noise.
                gumbel = -torch.empty_like(logits).exponential_().log()
                relaxed = torch.sigmoid(margin + offset + self.noise * (gumbel[:, 1] - gumbel[:, 0]))
                return Decision((relaxed > 0.5).to(relaxed.dtype) + (relaxed - relaxed.detach()), margin)
            return Decision((margin + offset > 0).to(margin.dtype), margin)


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Gates stay in float32 under autocast: a rounded margin would flip decisions near the threshold."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # the meta device, on which MACs are counted, knows no autocast
