from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from models.config import preset
from models.recipe import Recipe
from models.training_arguments import recipe_of, training_arguments

_CIFAR, _IMAGENET = "convnet-aig-20-cifar10", "convnet-aig-50-imagenet"


def _recipe(name: str, images: int, *more: str) -> Recipe:
    arguments = training_arguments(["--preset", name, "--data", "images", "--out", "run", *more])
    config = preset(name).without_gates() if arguments.plain else preset(name)
    return recipe_of(arguments, config, "fp32", images, 3)


@pytest.mark.parametrize(
    ("images", "epochs", "pretrained", "batch_size"),
    [
        (1_200_000, 30, 10, 128),
        (45_000, 30, 10, 128),
        (11_250, 60, 20, 128),
        (2_432, 129, 43, 64),
        (600, 200, 67, 16),
        (100, 200, 67, 8),
        (9, 200, 67, 8),
    ],
)
def test_epochs_and_batches_follow_from_the_size_of_the_data(
    images: int, epochs: int, pretrained: int, batch_size: int
) -> None:
    for more, expected in (([], epochs), (["--from", "weights.pth"], pretrained), (["--epochs", "5"], 5)):
        recipe = _recipe(_CIFAR, images, *more)
        assert (recipe.epochs, recipe.batch_size, recipe.held_out) == (expected, batch_size, 3)
    assert _recipe(_CIFAR, images, "--batch-size", "6").batch_size == 6


def test_recipe_follows_from_the_network_and_what_it_starts_from() -> None:
    assert _recipe(_CIFAR, 45_000) == Recipe(held_out=3)
    assert _recipe(_CIFAR, 45_000, "--from", "plain.safetensors") == Recipe(held_out=3, epochs=10, peak_lr=0.1)
    published = _recipe(_IMAGENET, 1_281_167)
    assert published == Recipe(held_out=3, epochs=100, weight_decay=1e-4, target_weight=1.0)
    tuned = {"held_out": 3, "epochs": 13, "batch_size": 64, "weight_decay": 1e-4, "label_smoothing": 0.1}
    plain = _recipe(_IMAGENET, 2_432, "--from", "weights.pth", "--plain")
    assert plain == Recipe(**tuned, peak_lr=0.05, backbone_lr=0.1, target_weight=1.0, frozen_norms=True)
    gated = _recipe(_IMAGENET, 2_432, "--from", "weights.pth")
    gates = {"gate_noise": 0.0, "target_warmup": 0.5, "target_weight": 20.0}
    assert gated == Recipe(**tuned, **gates, peak_lr=0.1, backbone_lr=0.2)


def test_what_is_said_comes_before_the_defaults() -> None:
    said = ["--weight-decay", "0.3", "--lr", "0.7", "--label-smoothing", "0", "--no-frozen-norms", "--backbone-lr", "1"]
    recipe = _recipe(_IMAGENET, 2_432, "--from", "weights.pth", "--ema", "0.5", "--class-weights", *said)
    assert (recipe.weight_decay, recipe.peak_lr, recipe.label_smoothing, recipe.ema_decay) == (0.3, 0.7, 0.0, 0.5)
    assert (recipe.frozen_norms, recipe.backbone_lr, recipe.class_weights) == (False, 1.0, True)


def test_features_of_a_teacher_count_where_they_were_seen_to_help() -> None:
    more = ["--from", "resnet50.safetensors"]
    assert _recipe(_IMAGENET, 600, *more).feature_weight == 0
    assert _recipe(_IMAGENET, 600, *more, "--teacher", "plain.safetensors").feature_weight == 1.0
    assert _recipe(_CIFAR, 600, *more, "--teacher", "plain.safetensors").feature_weight == 0


def test_teacher_has_a_share_of_the_loss_unless_another_is_said() -> None:
    assert _recipe(_CIFAR, 600).distillation == 0
    assert _recipe(_CIFAR, 600, "--teacher", "plain.safetensors").distillation == 0.5
    assert _recipe(_CIFAR, 600, "--teacher", "plain.safetensors", "--distillation", "0.9").distillation == 0.9


def test_budgets_are_a_range_or_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert _recipe(_CIFAR, 600, "--budgets", "0.35:1.0").budgets == (0.35, 1.0)
    assert _recipe(_CIFAR, 600, "--budgets", "0.6").budgets == (0.6, 0.6)
    with pytest.raises(ValidationError, match="the second is not below the first"):
        _recipe(_CIFAR, 600, "--budgets", "0.6:0.5")
    with pytest.raises(SystemExit):
        _recipe(_CIFAR, 600, "--budgets", "0.6:")
    assert "a number, or two with a colon between, not '0.6:'" in capsys.readouterr().err


def test_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training_arguments(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    decay = re.search(r"matrices \(default: (.*?)\)", told)
    assert decay
    assert decay[1].startswith("0.0005; 0.0001 for ImageNet's networks")
