"""A cascade: networks of which each runs only on the images that those before it are not sure of.

Each network is trained by itself. Averaging what several of them say gains far more than the exits of one network do,
whose later parts know what the earlier ones knew. The rule is told in `artifact.cascade`; this is its differentiable
form, in which every network runs on every image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import CascadeConfig, ModelConfig
from models.resnet import AdaptiveResNet, Output


class Cascade(nn.Module):
    """Networks in the order they run, in evaluation mode."""

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(AdaptiveResNet(network) for network in config.networks)

    def forward(self, x: Tensor, gate_offset: Tensor | float = 0.0) -> Output:
        """Classify x, (N, 3, H, W); `gate_offset`, a number or (N,), is added to every margin before the decision.

        The features are those of the first network.
        """
        first, *others = (network(x, gate_offset) for network in self.networks)
        logits, margins, opened = first.logits, [first.margins], [first.open]
        asked = torch.ones(len(x), dtype=torch.bool, device=x.device)  # (N,)
        for number, (output, sure) in enumerate(zip(others, self.config.sure_above, strict=True), 1):
            two_largest = logits.topk(2, dim=1).values
            margin = sure - (two_largest[:, 0] - two_largest[:, 1])  # (N,)
            is_open = asked & (margin + gate_offset > 0)
            own = torch.cat([output.margins, output.open], dim=1) * is_open[:, None]
            own_margins, own_open = own.chunk(2, dim=1)
            margins += [(margin * asked)[:, None], own_margins]
            opened += [is_open[:, None].to(margin.dtype), own_open]
            together = torch.logaddexp(F.log_softmax(logits, 1) + math.log(number), F.log_softmax(output.logits, 1))
            logits = torch.where(is_open[:, None], together - math.log(number + 1), logits)
            asked = is_open
        return Output(logits, torch.cat(margins, dim=1), torch.cat(opened, dim=1), first.features)


Network = AdaptiveResNet | Cascade


def build_network(config: ModelConfig | CascadeConfig) -> Network:
    """The network of a configuration, with fresh weights."""
    return AdaptiveResNet(config) if isinstance(config, ModelConfig) else Cascade(config)
