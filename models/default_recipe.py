"""The recipe of a run where the user says nothing: by the network, what it starts from, and the number of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from models.config import ModelConfig
from models.recipe import Recipe

# For CIFAR-10 the recipe's own defaults were made.
_IMAGES_OF_DEFAULT, _MOST_EPOCHS, _IMAGENET_EPOCHS = 45_000, 200, 100
# Of an epoch, and of a batch.
_FEWEST_STEPS, _SMALLEST_BATCH = 32, 8


class _Case(NamedTuple):
    """Settings of some runs that are not `Recipe`'s own defaults.

    Attributes:
        told: which runs, for people to read.
        holds: whether a network, which starts from other weights or not, is one of them.
        settings: fields of the recipe.
    """

    told: str
    holds: Callable[[ModelConfig, bool], bool]
    settings: dict[str, Any]


# Later ones come before earlier ones.
_CASES = (
    # Of the published ImageNet script (train_img.py in https://github.com/andreasveit/convnet-aig), which gives all
    # blocks one target rate.
    _Case(
        "for ImageNet's networks",
        lambda config, _: config.stem == "imagenet",
        {"weight_decay": 1e-4, "target_weight": 1.0},
    ),
    # A lower rate leaves of the weights what they have learned, see `bench.frontier`.
    _Case(
        "for CIFAR's with --from", lambda config, pretrained: config.stem == "cifar" and pretrained, {"peak_lr": 0.1}
    ),
    # What did best on photographs of flowers, see `bench.own_images`.
    _Case(
        "for ImageNet's with --from",
        lambda config, pretrained: config.stem == "imagenet" and pretrained,
        {"peak_lr": 0.05, "backbone_lr": 0.1, "label_smoothing": 0.1},
    ),
    _Case(
        "for ImageNet's with --from and --plain",
        lambda config, pretrained: config.stem == "imagenet" and pretrained and not config.gated,
        {"frozen_norms": True},
    ),
    _Case(
        "for ImageNet's with --from and gates",
        lambda config, pretrained: config.stem == "imagenet" and pretrained and config.gated,
        {
            "peak_lr": 0.1,
            "backbone_lr": 0.2,
            "gate_noise": 0.0,
            "target_warmup": 0.5,
            "target_weight": 20.0,
            "feature_weight": 1.0,
        },
    ),
)
# Of the epochs from random weights, those from others.
_PRETRAINED_EPOCHS = {"cifar": 1 / 3, "imagenet": 1 / 10}

EPOCHS = (
    f"{Recipe().epochs} of {_IMAGES_OF_DEFAULT:,} images or more, {_IMAGENET_EPOCHS} for ImageNet's networks, up to "
    f"{_MOST_EPOCHS} of fewer; with --from a third of that, or for ImageNet's a tenth"
)
BATCH_SIZE = f"{Recipe().batch_size}, halved until an epoch has {_FEWEST_STEPS} steps"


def default_settings(config: ModelConfig, pretrained: bool, images: int) -> dict[str, Any]:
    """Fields of the recipe that are not `Recipe`'s own defaults.

    Args:
        config: of the network.
        pretrained: whether it starts from other weights.
        images: to train on.
    """
    settings = {"epochs": _epochs(config, pretrained, images), "batch_size": _batch_size(images)}
    for case in _CASES:
        if case.holds(config, pretrained):
            settings |= case.settings
    return settings


def default_text(field: str) -> str:
    """The defaults of a field, for people to read."""
    told = [_told(getattr(Recipe(), field))]
    return "; ".join(told + [f"{_told(case.settings[field])} {case.told}" for case in _CASES if field in case.settings])


def _told(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _epochs(config: ModelConfig, pretrained: bool, images: int) -> int:
    """How often so many images are seen: fewer images more often, but not as much more as they are fewer.

    Rules of thumb.
    """
    least = _IMAGENET_EPOCHS if config.stem == "imagenet" else Recipe().epochs
    epochs = min(_MOST_EPOCHS, max(least, round(Recipe().epochs * math.sqrt(_IMAGES_OF_DEFAULT / max(1, images)))))
    return max(1, round(epochs * _PRETRAINED_EPOCHS[config.stem])) if pretrained else epochs


def _batch_size(images: int) -> int:
    """How many of so many images are a batch: few enough that an epoch has some steps."""
    size = Recipe().batch_size
    while size > _SMALLEST_BATCH and images // size < _FEWEST_STEPS:
        size //= 2
    return size
