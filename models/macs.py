"""Multiply-accumulates (MACs) of a network, part by part, counted from the layers that really run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.resnet import AdaptiveResNet


@dataclass(frozen=True)
class BlockMacs:
    """MACs of one block for one image: `residual` is what skipping it saves; shortcut and gate always run."""

    residual: int
    shortcut: int
    gate: int


@dataclass(frozen=True)
class Macs:
    """MACs of a network for one image. `blocks` is by block name, in order."""

    stem: int
    blocks: dict[str, BlockMacs]
    classifier: int

    @property
    def total(self) -> int:
        """With every block executed, gates included."""
        return self.ungated + sum(block.gate for block in self.blocks.values())

    @property
    def ungated(self) -> int:
        """Of the same network without gates."""
        return self.stem + self.classifier + sum(block.residual + block.shortcut for block in self.blocks.values())


def count_macs(config: ModelConfig) -> Macs:
    """Count the MACs of convolutions and matrix products for one image of the configured input size.

    Norms, activations and additions are left out, as is usual (the paper's FLOPs, section 4, are these MACs).
    """
    counts: Counter[str] = Counter()

    def count(name: str, module: nn.Module, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            kernel = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            counts[name] += kernel * output[0].numel()
        elif isinstance(module, nn.Linear):
            counts[name] += module.in_features * module.out_features

    with torch.device("meta"):  # shapes only: nothing is computed
        network = AdaptiveResNet(config).eval()
        for name, module in network.named_modules():
            module.register_forward_hook(lambda module, _, output, name=name: count(name, module, output))
        network(torch.empty(1, 3, config.input_size, config.input_size))

    def within(prefix: str) -> int:
        return sum(macs for name, macs in counts.items() if name == prefix or name.startswith(f"{prefix}."))

    blocks = {
        name: BlockMacs(*(within(f"blocks.{name}.{part}") for part in ("residual", "shortcut", "gate")))
        for name in network.blocks
    }
    return Macs(within("stem"), blocks, within("classifier"))
