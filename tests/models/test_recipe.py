from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from models.device import fast_precision
from models.recipe import Recipe, make_optimizer
from models.resnet import AdaptiveResNet

STEPS = 1000


def test_one_cycle_rises_from_a_25th_of_the_peak_and_falls_to_zero() -> None:
    recipe = Recipe(peak_lr=0.5)
    assert recipe.learning_rate(0, STEPS) == pytest.approx(0.5 / 25)
    assert recipe.learning_rate(300, STEPS) == 0.5
    assert recipe.learning_rate(STEPS - 1, STEPS) == pytest.approx(0, abs=1e-5)
    assert recipe.learning_rate(STEPS, STEPS) == pytest.approx(0, abs=1e-12)


def test_cosine_rises_over_the_first_twentieth_and_falls_to_zero() -> None:
    recipe = Recipe(peak_lr=0.5, schedule="cosine")
    assert recipe.learning_rate(0, STEPS) == pytest.approx(0.5 / 50)
    assert recipe.learning_rate(49, STEPS) == recipe.learning_rate(50, STEPS) == 0.5
    assert recipe.learning_rate(525, STEPS) == pytest.approx(0.25)
    assert recipe.learning_rate(STEPS, STEPS) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_learning_rate_rises_then_falls_within_its_bounds(schedule: str, steps: int) -> None:
    recipe = Recipe.model_validate({"peak_lr": 0.5, "schedule": schedule})
    rates = [recipe.learning_rate(step, steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_target_falls_over_its_warm_up() -> None:
    recipe = Recipe(target_warmup=0.5)
    assert recipe.fallen(0, STEPS) == pytest.approx(1 / 500)
    assert recipe.fallen(249, STEPS) == pytest.approx(0.5)
    assert recipe.fallen(499, STEPS) == recipe.fallen(999, STEPS) == 1


def test_target_is_what_it_is_at_once_without_a_warm_up() -> None:
    assert Recipe().fallen(0, STEPS) == 1


def test_images_grow_by_eighths_to_their_full_side_at_three_quarters_of_the_steps() -> None:
    recipe = Recipe(smallest_image=0.6)
    sides = [recipe.image_side(step, STEPS, 32) for step in range(STEPS)]
    assert sorted(set(sides)) == [20, 24, 28, 32]
    assert sides == sorted(sides)
    assert sides[749:] == [32] * 251
    assert recipe.image_side(0, STEPS, 224) == 140


@pytest.mark.parametrize("step", [0, 400, 999])
def test_images_may_have_their_full_side_throughout(step: int) -> None:
    assert Recipe(smallest_image=1.0).image_side(step, STEPS, 32) == 32


def test_norms_and_biases_have_no_weight_decay(network: AdaptiveResNet) -> None:
    optimizer = make_optimizer(network, Recipe(weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_weight = isinstance(module, nn.Conv2d | nn.Linear) and name == "weight"
            assert decay[id(parameter)] == (0.1 if is_weight else 0.0), (module, name)


def test_backbone_has_its_share_of_the_learning_rate(network: AdaptiveResNet) -> None:
    optimizer = make_optimizer(network, Recipe(backbone_lr=0.1))
    shares = {parameter: group["share"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        assert shares[parameter] == (1.0 if ".gate." in name or name.startswith("classifier.") else 0.1), name
    assert len(shares) == len([*network.parameters()])


def test_optimizer_without_momentum_is_plain_descent(network: AdaptiveResNet) -> None:
    assert make_optimizer(network, Recipe(momentum=0)).defaults["nesterov"] is False


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 1}, {"peak_lr": 0}, {"momentum": 1}, {"smallest_image": 0}, {"steps": 3}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)


def test_fast_precision_of_a_cpu_is_one_it_can_use() -> None:
    assert fast_precision(torch.device("cpu")) in {"bf16", "fp32"}
