"""The recipe of a run where the user says nothing: by the network, what it starts from, and the number of images."""

from __future__ import annotations

import math
from typing import Any

from models.config import ModelConfig
from models.recipe import Recipe

# For CIFAR-10 the recipe's own defaults were made.
_IMAGES_OF_DEFAULT, _MOST_EPOCHS = 45_000, 200
# Of the published ImageNet script (train_img.py in https://github.com/andreasveit/convnet-aig), which gives all blocks
# one target rate.
_IMAGENET: dict[str, Any] = {"weight_decay": 1e-4, "target_weight": 1.0}
_IMAGENET_EPOCHS = 100
# What did best on photographs of flowers, see `bench.own_images`.
_PRETRAINED: dict[str, Any] = {}
# Of an epoch, and of a batch.
_FEWEST_STEPS, _SMALLEST_BATCH = 16, 8

EPOCHS = (
    f"{Recipe().epochs} of {_IMAGES_OF_DEFAULT:,} images or more, {_IMAGENET_EPOCHS} of ImageNet's networks, up to "
    f"{_MOST_EPOCHS} of fewer; a third of that with --from"
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
    if config.stem == "imagenet":
        settings |= _IMAGENET
    return settings | (_PRETRAINED if pretrained else {})


def default_text(field: str) -> str:
    """The defaults of a field, for people to read."""
    told = [_told(getattr(Recipe(), field))]
    told += [f"{_told(_IMAGENET[field])} of ImageNet's networks"] if field in _IMAGENET else []
    told += [f"{_told(_PRETRAINED[field])} with --from"] if field in _PRETRAINED else []
    return "; ".join(told)


def _told(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _epochs(config: ModelConfig, pretrained: bool, images: int) -> int:
    """How often so many images are seen: fewer images more often, but not as much more as they are fewer.

    A rule of thumb; of pretrained weights a third is enough.
    """
    least = _IMAGENET_EPOCHS if config.stem == "imagenet" else Recipe().epochs
    epochs = min(_MOST_EPOCHS, max(least, round(Recipe().epochs * math.sqrt(_IMAGES_OF_DEFAULT / max(1, images)))))
    return max(1, round(epochs / 3)) if pretrained else epochs


def _batch_size(images: int) -> int:
    """How many of so many images are a batch: few enough that an epoch has some steps."""
    size = Recipe().batch_size
    while size > _SMALLEST_BATCH and images // size < _FEWEST_STEPS:
        size //= 2
    return size
