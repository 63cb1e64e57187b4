"""The adaptive residual network: stem, gated blocks, classifier."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import BLOCKS, ResidualBlock
from models.config import ModelConfig


class Output(NamedTuple):
    """What the network says about a batch; G is the number of gated blocks.

    Attributes:
        logits: (N, classes).
        margins: (N, G) margin of every gate, in block order.
        open: (N, G) 1.0 where the gate's block ran; in training with the straight-through gradient.
        features: (N, channels) what the classifier sees.
    """

    logits: Tensor
    margins: Tensor
    open: Tensor
    features: Tensor


class AdaptiveResNet(nn.Module):
    """ConvNet-AIG (paper, section 3): a residual network with a gate before every block whose target rate is below 1.

    With all target rates at 1 it is the plain ResNet of the same shape.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        block = BLOCKS[config.block]
        width = config.stage_widths[0]
        if config.stem == "cifar":
            self.stem = nn.Sequential(
                nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
            )
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2, padding=1),
            )
        blocks: dict[str, ResidualBlock] = {}
        rates = iter(config.target_rates)
        for stage, (count, stage_width) in enumerate(zip(config.stage_blocks, config.stage_widths, strict=True), 1):
            for position in range(count):
                stride = 2 if stage > 1 and position == 0 else 1
                gate_hidden = config.gate_hidden if next(rates) < 1 else None
                name = block_name(stage, position)
                blocks[name] = block(width, stage_width, stride, gate_hidden, config.bottleneck_stride)
                width = stage_width * block.expansion
        self.blocks = nn.ModuleDict(blocks)
        self.classifier = nn.Linear(width, len(config.labels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, gate_offset: Tensor | float = 0.0) -> Output:
        """Classify x, (N, 3, H, W).

        `gate_offset`, a number or (N,), is added to every margin before the decision.
        """
        x = self.stem(x)
        decisions = []
        for block in self.blocks.values():
            x, decision = block(x, gate_offset)
            if decision is not None:
                decisions.append(decision)
        features = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits = self.classifier(features)
        if not decisions:
            empty = logits.new_empty((len(logits), 0), dtype=torch.float32)
            return Output(logits, empty, empty, features)
        return Output(
            logits,
            torch.stack([decision.margin for decision in decisions], dim=1),
            torch.stack([decision.open for decision in decisions], dim=1),
            features,
        )

    @property
    def gated_blocks(self) -> list[str]:
        """Names of the gated blocks, in the order of the margins."""
        return [name for name, block in self.blocks.items() if block.gate is not None]


def block_name(stage: int, position: int) -> str:
    """The name of a block everywhere: stage from 1, position in the stage from 1."""
    return f"stage{stage}_block{position + 1}"
