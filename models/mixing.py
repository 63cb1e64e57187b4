"""Mixtures of two images and of their classes, from which a network learns to be less sure between classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mixed(images: Tensor, classes: Tensor, count: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018, section 2): each image of a batch with another, all in the same proportion.

    Args:
        images: (N, 3, H, W).
        classes: (N,) of the images.
        count: of all classes.
        alpha: of the symmetric beta distribution that the proportion is drawn from; with 0 nothing is mixed.

    Returns:
        The images and what they are: (N,) classes where nothing is mixed, else (N, count) shares of the classes.
    """
    if not alpha:
        return images, classes
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    others = torch.randperm(len(images)).to(images.device)
    shares = F.one_hot(classes, count).to(torch.float32)
    return share * images + (1 - share) * images[others], share * shares + (1 - share) * shares[others]
