"""A network from which another learns."""

from __future__ import annotations

import torch
from torch import Tensor

from models.resnet import AdaptiveResNet, Output


class Teacher:
    """A network whose answers another learns to give, and whose features it learns to see.

    Args:
        network: of the same classes and input.
        digest: SHA-256 of the file that it comes from.

    Attributes:
        channels: of its features.
    """

    def __init__(self, network: AdaptiveResNet, digest: str) -> None:
        self._network = network.eval()
        self.channels = network.classifier.in_features
        self.digest = digest

    @torch.no_grad()
    def answer(self, images: Tensor) -> Output:
        """What it says about images, (N, 3, H, W)."""
        output: Output = self._network(images)
        return output
