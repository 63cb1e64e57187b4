"""How a network is trained: every number of a run that is not the network or the data."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from models.device import Precision
from models.loss import TARGET_WEIGHT

# Share of the steps over which images grow.
_GROWING = 0.75


class Recipe(BaseModel):
    """The settings of one training run.

    The defaults are for CIFAR: weight decay and target weight are those of the published CIFAR script (train.py in
    https://github.com/andreasveit/convnet-aig). Its ImageNet script has weight decay 1e-4 and target weight 1.

    Attributes:
        epochs: times each training image is seen.
        batch_size: images a step.
        peak_lr: highest learning rate of the schedule.
        schedule: "one-cycle" rises from peak/25 over the first 30% of the steps and falls to zero along a cosine
            (Smith & Topin 2018); "cosine" rises linearly over the first 5% and falls likewise.
        momentum: Nesterov momentum of SGD.
        weight_decay: of convolution and matrix weights; norms and biases have none.
        target_weight: weight of the target-rate loss.
        target_warmup: share of the steps over which the target falls linearly from all gates open.
        gate_noise: share of the paper's Gumbel noise that decisions have in training, see `models.gate`.
        budgets: smallest and largest share of the compute to train the gates for, see `models.budgets`; None trains
            them for their target rates alone.
        label_smoothing: of the classification loss.
        distillation: share of the loss that is the distance from a teacher's answers, see `models.loss`.
        feature_weight: of the distance from a teacher's features beside the classification loss, see `models.loss`.
        backbone_lr: share of the learning rate for all weights but those of gates and classifier; 0 leaves them as they
            are.
        frozen_norms: whether batch norms outside gates keep their statistics, which a few images would spoil.
        ema_decay: of the mean over the steps that is kept of all weights, and judged and saved in their place; 0 keeps
            none.
        patience: epochs without a better one after which the run ends; None lets it go on.
        mixup: how much images are mixed, see `models.mixing`; 0 mixes none.
        color_jitter, rand_augment: how images are distorted, see `models.distortion`; 0 leaves them as they are.
        class_weights: whether images of rare classes count for more, so that all classes count alike.
        smallest_image: side of the images at the first step, as a share of the full side, see `image_side`.
        held_out: images kept for validation.
        precision: "bf16" or "fp16" (autocast; the loss is then scaled, as small gradients would be zero), or "fp32".
        seed: of the weights, the order of the images, their augmentation and the gates' noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=30, gt=0)
    batch_size: int = Field(default=128, gt=1)
    peak_lr: float = Field(default=0.2, gt=0)
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    target_weight: float = Field(default=TARGET_WEIGHT, ge=0)
    target_warmup: float = Field(default=0.0, ge=0, le=1)
    gate_noise: float = Field(default=1.0, ge=0, le=1)
    budgets: tuple[float, float] | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    distillation: float = Field(default=0.0, ge=0, le=1)
    feature_weight: float = Field(default=0.0, ge=0)
    backbone_lr: float = Field(default=1.0, ge=0, le=1)
    frozen_norms: bool = False
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    patience: int | None = Field(default=None, gt=0)
    mixup: float = Field(default=0.0, ge=0)
    color_jitter: float = Field(default=0.0, ge=0, le=1)
    rand_augment: int = Field(default=0, ge=0, le=30)
    class_weights: bool = False
    smallest_image: float = Field(default=0.6, gt=0, le=1)
    held_out: int = Field(default=0, ge=0)
    precision: Precision = "fp32"
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.budgets is not None and not 0 < self.budgets[0] <= self.budgets[1] <= 1:
            raise ValueError("budgets are above 0, at most 1, and the second is not below the first")
        return self

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, in a run of `steps`."""
        rise = max(1, round(steps * (0.3 if self.schedule == "one-cycle" else 0.05)))
        if step >= rise:
            return self.peak_lr * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2
        if self.schedule == "cosine":
            return self.peak_lr * (step + 1) / rise
        return self.peak_lr * (1 - (24 / 25) * (1 + math.cos(math.pi * step / rise)) / 2)

    def image_side(self, step: int, steps: int, full: int) -> int:
        """The side of the images at a step, in pixels: progressive resizing (Tan & Le 2021, section 4).

        It grows by eighths of the full side, and is full for the last quarter of the steps, in which batch norm gets
        the statistics of what is served.
        """
        grown = min(1.0, step / (_GROWING * steps))
        eighths = round(8 * (self.smallest_image + (1 - self.smallest_image) * grown))
        return max(1, full * eighths // 8)

    def fallen(self, step: int, steps: int) -> float:
        """How far the target has fallen at a step, from 0 (all gates open) to 1 (as it is told)."""
        return min(1.0, (step + 1) / max(1.0, self.target_warmup * steps))


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with Nesterov momentum and no weight decay on norms and biases (their parameters have one dimension).

    Each group of parameters has, as "share", its share of the learning rate.
    """
    shares = {name: 1.0 if is_head(name) else recipe.backbone_lr for name, _ in network.named_parameters()}
    groups = [
        {
            "params": [
                parameter
                for name, parameter in network.named_parameters()
                if (parameter.dim() > 1) is decays and shares[name] == share
            ],
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "share": share,
        }
        for share in sorted({*shares.values()})
        for decays in (True, False)
    ]
    return torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def is_head(name: str) -> bool:
    """Whether a weight of this name is one of a gate or of the classifier, which learn what the backbone need not."""
    return ".gate." in name or name.startswith("classifier.")
