"""Residual blocks with an optional gate. The shortcut always runs; the gate decides about the residual branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import BottleneckStride
from models.gate import Decision, Gate


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + open * residual(x)); without a gate the residual branch always runs (paper, equation 2).

    Subclasses set `expansion` and build the residual branch.
    """

    expansion: int

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        gate_hidden: int | None,
        bottleneck_stride: BottleneckStride = "3x3",
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.residual = self._residual(in_channels, width, stride, bottleneck_stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.gate = None if gate_hidden is None else Gate(in_channels, gate_hidden)

    def _residual(self, in_channels: int, width: int, stride: int, position: BottleneckStride) -> nn.Sequential:
        raise NotImplementedError

    def forward(self, x: Tensor, gate_offset: Tensor | float = 0.0) -> tuple[Tensor, Decision | None]:
        """Map (N, C, H, W) to (N, C', H', W'), and say what the gate decided (None without a gate).

        Every residual branch is computed here and multiplied by its decision: training needs the gradient of closed
        gates too. The form that skips is made by `export.inference`.
        """
        residual = self.residual(x)
        if self.gate is None:
            return F.relu(self.shortcut(x) + residual), None
        decision = self.gate(x, gate_offset)
        opened = decision.open.to(residual.dtype)[:, None, None, None]
        return F.relu(torch.addcmul(self.shortcut(x), opened, residual)), decision


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al. 2016, figure 2)."""

    expansion = 1

    def _residual(self, in_channels: int, width: int, stride: int, _: BottleneckStride) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al. 2016, figure 5), the stride where `ModelConfig` has it."""

    expansion = 4

    def _residual(self, in_channels: int, width: int, stride: int, position: BottleneckStride) -> nn.Sequential:
        first, second = (stride, 1) if position == "1x1" else (1, stride)
        return nn.Sequential(
            nn.Conv2d(in_channels, width, 1, first, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, second, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width * self.expansion, 1, bias=False),
            nn.BatchNorm2d(width * self.expansion),
        )


BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}
