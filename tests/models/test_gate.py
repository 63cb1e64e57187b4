from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from artifact.manifest import ALWAYS, NEVER
from models.gate import Gate


@pytest.fixture
def gate() -> Gate:
    """A gate whose margins differ from image to image, in evaluation mode."""
    gate = Gate(8)
    nn.init.normal_(gate.fc2.weight, std=2.0)
    nn.init.zeros_(gate.fc2.bias)
    return gate.eval()


def _inputs(count: int) -> Tensor:
    return torch.randn(count, 8, 4, 4) + torch.randn(count, 8, 1, 1)


def _with_margin(margin: float) -> Gate:
    """A gate whose margin is the same for every image."""
    gate = Gate(8)
    with torch.no_grad():
        gate.fc2.weight.zero_()
        gate.fc2.bias.copy_(torch.tensor([0.0, margin]))
    return gate


def test_fresh_gates_open_for_about_85_percent_of_the_images() -> None:
    opened = Gate(8).train()(_inputs(4000)).open.mean().item()
    assert 0.83 < opened < 0.90


def test_fresh_gates_are_all_open_in_evaluation() -> None:
    assert Gate(8).eval()(_inputs(50)).open.tolist() == [1.0] * 50


def test_training_decisions_are_exactly_zero_or_one(gate: Gate) -> None:
    opened = gate.train()(_inputs(20_000)).open
    assert set(opened.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("margin", [-1.5, 0.0, 0.5])
def test_training_opens_a_gate_with_the_probability_its_margin_states(margin: float) -> None:
    opened = _with_margin(margin).train()(_inputs(20_000)).open.mean()
    assert opened.item() == pytest.approx(torch.sigmoid(torch.tensor(margin)).item(), abs=0.015)


def test_offsets_shift_each_image_in_training_too() -> None:
    gate, offsets = _with_margin(0.5).train(), torch.tensor([-2.0, 1.0]).repeat(10_000)
    opened = gate(_inputs(20_000), offsets).open
    for start, offset in enumerate((-2.0, 1.0)):
        expected = torch.sigmoid(torch.tensor(0.5 + offset)).item()
        assert opened[start::2].mean().item() == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("offset", [ALWAYS, NEVER])
def test_gate_held_open_or_closed_in_training_has_no_gradient_and_no_nan(gate: Gate, offset: float) -> None:
    opened = gate.train()(_inputs(40), torch.full((40,), offset)).open
    assert (opened == (offset > 0)).all()
    opened.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in gate.parameters())


def test_gradient_reaches_the_gate_for_closed_images_too(gate: Gate) -> None:
    x = _inputs(40).requires_grad_()
    opened = gate.train()(x).open
    closed = opened == 0
    assert closed.any()
    assert not closed.all()
    opened[closed].sum().backward()
    for name, parameter in gate.named_parameters():
        # Batch norm takes the mean away again, so the bias before it has no influence.
        if name != "fc1.bias":
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name
    assert gate.fc2.bias.grad is not None
    assert gate.fc2.bias.grad[1] > 0 > gate.fc2.bias.grad[0]
    assert x.grad is not None
    assert (x.grad[closed].abs().sum(dim=(1, 2, 3)) > 0).all()


def test_gradient_is_that_of_the_relaxed_sample() -> None:
    gate = _with_margin(0.3).train()
    torch.manual_seed(5)
    gate(_inputs(1).expand(6, -1, -1, -1).contiguous()).open.sum().backward()
    # The noise again: one exponential a logit.
    torch.manual_seed(5)
    _inputs(1)
    noise = -torch.empty(6, 2).exponential_().log()
    relaxed = torch.sigmoid(0.3 + noise[:, 1] - noise[:, 0])
    assert gate.fc2.bias.grad is not None
    assert gate.fc2.bias.grad[1].item() == pytest.approx((relaxed * (1 - relaxed)).sum().item(), rel=1e-5)


def test_margin_is_the_execute_logit_minus_the_skip_logit(gate: Gate) -> None:
    x = _inputs(5)
    hidden = torch.relu(gate.bn(x.mean(dim=(2, 3)) @ gate.fc1.weight.T + gate.fc1.bias))
    skip, execute = (hidden @ gate.fc2.weight.T + gate.fc2.bias).T
    torch.testing.assert_close(gate(x).margin, execute - skip)


def test_without_noise_training_decides_as_evaluation_does() -> None:
    for margin, offset, opened in ((0.3, 0.0, 1.0), (-0.3, 0.0, 0.0), (-0.3, 0.5, 1.0)):
        gate = _with_margin(margin).train()
        gate.noise = 0.0
        decision = gate(_inputs(8), offset)
        assert decision.open.tolist() == [opened] * 8
        decision.open.sum().backward()
        assert gate.fc2.bias.grad is not None
        slope = torch.sigmoid(torch.tensor(margin + offset)).mul(torch.sigmoid(torch.tensor(-margin - offset)))
        assert gate.fc2.bias.grad[1].item() == pytest.approx(8 * slope.item(), rel=1e-4)


def test_evaluation_has_no_noise(gate: Gate) -> None:
    x = _inputs(50)
    first, second = gate(x), gate(x)
    assert torch.equal(first.open, second.open)
    assert torch.equal(first.margin, second.margin)
    assert torch.equal(first.open, (first.margin > 0).float())
    assert 0 < first.open.mean() < 1


def test_decision_does_not_depend_on_the_rest_of_the_batch(gate: Gate) -> None:
    x = _inputs(50)
    alone = [gate(image[None]) for image in x]
    together = gate(x)
    torch.testing.assert_close(together.margin, torch.cat([decision.margin for decision in alone]))
    assert torch.equal(together.open, torch.cat([decision.open for decision in alone]))


def test_offset_moves_decisions_but_not_margins(gate: Gate) -> None:
    x = _inputs(50)
    plain, lower, higher = gate(x), gate(x, -1.0), gate(x, 1.0)
    assert torch.equal(lower.open, (plain.margin > 1).float())
    assert torch.equal(higher.open, (plain.margin > -1).float())
    assert lower.open.sum() < plain.open.sum() < higher.open.sum()
    assert torch.equal(lower.margin, plain.margin)


def test_each_image_may_have_its_own_offset(gate: Gate) -> None:
    x = _inputs(4)
    assert gate(x, torch.tensor([1e9, -1e9, 1e9, -1e9])).open.tolist() == [1, 0, 1, 0]


def test_gate_whose_margin_is_exactly_at_the_threshold_is_closed(gate: Gate) -> None:
    x = _inputs(10)
    assert gate(x, -gate(x).margin).open.sum() == 0


def test_margins_stay_in_float32_under_autocast(gate: Gate) -> None:
    x = _inputs(10).bfloat16()
    expected = gate(x.float()).margin
    with torch.autocast("cpu", torch.bfloat16):
        margin = gate(x).margin
    assert margin.dtype == torch.float32
    torch.testing.assert_close(margin, expected, rtol=1e-6, atol=1e-6)


def test_gate_runs_on_the_meta_device_where_macs_are_counted() -> None:
    with torch.device("meta"):
        assert Gate(8).eval()(torch.empty(3, 8, 4, 4)).margin.shape == (3,)
