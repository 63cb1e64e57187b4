"""Changes of colour and shape that training may make to its images, by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from artifact.preprocessing import UInt8Array

# Changes made to each image by RandAugment; its authors found two or three good everywhere (Cubuk et al. 2020).
_CHANGES = 2


@dataclass(frozen=True)
class Distortion:
    """What is done to an image besides cropping and mirroring it.

    Attributes:
        color_jitter: by how much brightness, contrast and saturation change at most, as a share of them.
        rand_augment: magnitude of RandAugment's two changes, from 1 to 30; 0 makes none.
    """

    color_jitter: float = 0.0
    rand_augment: int = 0

    def __bool__(self) -> bool:
        return bool(self.color_jitter or self.rand_augment)

    def __str__(self) -> str:
        """What it does, after what else is done."""
        told = f", RandAugment of magnitude {self.rand_augment}" if self.rand_augment else ""
        return told + (f", colours changed by up to {self.color_jitter:.0%}" if self.color_jitter else "")

    def of(self, image: UInt8Array, seed: int) -> UInt8Array:
        """The distorted image, (H, W, 3), which depends on the seed alone.

        Raises:
            ValueError: torchvision is not installed.
        """
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the one that the network's noise is of
            torch.manual_seed(int(seed))
            changed = self._transform(torch.tensor(image).permute(2, 0, 1))
        distorted: UInt8Array = changed.permute(1, 2, 0).numpy()
        return distorted

    def check(self) -> None:
        """Fail before anything is decoded where what is asked for cannot be done.

        Raises:
            ValueError: torchvision is not installed.
        """
        if self:
            _ = self._transform

    @cached_property
    def _transform(self) -> Callable[[torch.Tensor], Any]:
        try:
            from torchvision.transforms import v2
        except (ImportError, RuntimeError) as error:  # the latter where it was built for another torch
            raise ValueError(
                "--color-jitter and --rand-augment need torchvision for this torch: pip install "
                f"'convnet-aig-serving[augment]' ({error})"
            ) from error
        steps = [v2.RandAugment(_CHANGES, self.rand_augment)] if self.rand_augment else []
        if self.color_jitter:
            steps.append(v2.ColorJitter(self.color_jitter, self.color_jitter, self.color_jitter))
        return v2.Compose(steps)
