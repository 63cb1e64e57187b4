"""A network from whose answers another learns."""

from __future__ import annotations

import torch
from torch import Tensor

from models.resnet import AdaptiveResNet


class Teacher:
    """A network whose answers another learns to give.

    Args:
        network: of the same classes and input.
        digest: SHA-256 of the file that it comes from.
    """

    def __init__(self, network: AdaptiveResNet, digest: str) -> None:
        self._network = network.eval()
        self.digest = digest

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(N, classes) for images (N, 3, H, W)."""
        logits: Tensor = self._network(images).logits
        return logits
