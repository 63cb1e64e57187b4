from __future__ import annotations

import pytest
import torch

from artifact.manifest import ALWAYS
from models.budgets import Budgets
from models.config import ModelConfig
from models.structure import Structure
from tests.models.conftest import MakeConfig

RATES = torch.full((3,), 0.5)


@pytest.fixture
def structure(config: ModelConfig) -> Structure:
    return Structure.of_config(config)


@pytest.fixture
def budgets(structure: Structure) -> Budgets:
    return Budgets(structure, RATES, 0.4, 1.0)


def test_a_quarter_has_the_largest_budget_and_the_others_spread_evenly(budgets: Budgets) -> None:
    drawn = budgets.draw(400)
    assert (drawn == 1).sum() == 100
    below = drawn[drawn < 1].sort().values
    assert below[0] >= 0.4
    assert torch.allclose(below, torch.linspace(0.4, 1, len(below)), atol=0.005)


def test_budgets_are_not_in_order(budgets: Budgets) -> None:
    drawn = budgets.draw(400)
    assert abs(float(torch.corrcoef(torch.stack([drawn, torch.arange(400.0)]))[0, 1])) < 0.2


def test_offset_is_zero_where_the_budget_is_that_of_the_target_rates(structure: Structure, budgets: Budgets) -> None:
    shares = structure.skippable_macs[structure.gated] / structure.total_macs
    at_rest = 1 - float(shares.sum()) * 0.5
    assert budgets.gate_offset(torch.tensor([at_rest])).item() == pytest.approx(0, abs=1e-5)


def test_one_budget_is_that_of_all_images_without_an_offset(structure: Structure) -> None:
    one = Budgets(structure, RATES, 0.6, 0.6)
    drawn = one.draw(8)
    assert drawn.tolist() == pytest.approx([0.6] * 8)
    assert one.gate_offset(drawn).tolist() == pytest.approx([0] * 8, abs=1e-5)


def test_offset_rises_with_the_budget_up_to_gates_held_open(budgets: Budgets) -> None:
    offsets = budgets.gate_offset(torch.linspace(0.4, 1, 20))
    assert (offsets.diff() > 0)[:-1].all()
    assert offsets[-1] == ALWAYS


def test_budgets_met_on_average_cost_nothing(structure: Structure, budgets: Budgets) -> None:
    gates = torch.ones(8, 3)
    assert budgets.loss(gates, torch.ones(8)).item() == pytest.approx(0, abs=1e-10)
    closed = 1 - float(structure.skippable_macs.sum()) / structure.total_macs
    assert budgets.loss(0 * gates, torch.full((8,), closed)).item() == pytest.approx(0, abs=1e-10)


def test_loss_compares_images_with_their_own_budgets(structure: Structure, budgets: Budgets) -> None:
    closed = 1 - float(structure.skippable_macs.sum()) / structure.total_macs
    small_and_large = torch.tensor([closed, 1.0] * 4)
    gates = torch.tensor([[0.0] * 3, [1.0] * 3] * 4)
    assert budgets.loss(gates, small_and_large).item() == pytest.approx(0, abs=1e-10)
    assert budgets.loss(1 - gates, small_and_large).item() == pytest.approx((1 - closed) ** 2, rel=1e-5)


def test_gradient_closes_gates_of_images_over_their_budget_and_opens_the_others(budgets: Budgets) -> None:
    gates = torch.ones(8, 3) * 0.5
    gates.requires_grad_()
    budgets.loss(gates, torch.tensor([0.4, 1.0] * 4)).backward()
    assert gates.grad is not None
    assert (gates.grad[::2] > 0).all()
    assert (gates.grad[1::2] < 0).all()


def test_budgets_below_what_closed_gates_cost_are_refused(structure: Structure) -> None:
    with pytest.raises(ValueError, match="all gates closed"):
        Budgets(structure, RATES, 0.01, 1.0)


def test_network_without_gates_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="without gates"):
        Budgets(Structure.of_config(make_config().without_gates()), torch.empty(0), 0.4, 1.0)
