from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from models.loss import balanced_weights, distillation_loss, target_rate_loss, total_loss

# Execution rates 0.75 and 0.25 of two gates over four images.
DECISIONS = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])


def test_target_rate_loss_is_the_mean_squared_distance_of_the_rates() -> None:
    loss = target_rate_loss(DECISIONS, torch.tensor([0.5, 0.6]))
    assert loss.item() == pytest.approx(((0.75 - 0.5) ** 2 + (0.25 - 0.6) ** 2) / 2)


def test_rates_at_their_targets_cost_nothing() -> None:
    assert target_rate_loss(DECISIONS, torch.tensor([0.75, 0.25])).item() == 0


def test_network_without_gates_has_no_target_rate_loss() -> None:
    assert target_rate_loss(torch.empty(4, 0), torch.empty(0)).item() == 0


def test_total_is_cross_entropy_plus_the_weighted_target_rate_loss() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [1.0, 3.0, 2.0], [-2.0, 0.0, 1.0]])
    classes = [0, 2, 1, 1]
    by_hand = -sum(
        math.log(math.exp(row[label]) / sum(map(math.exp, row)))
        for row, label in zip(logits.tolist(), classes, strict=True)
    )
    compute = target_rate_loss(DECISIONS, torch.tensor([0.5, 0.5]))
    loss = total_loss(logits, torch.tensor(classes), compute, target_weight=3.0)
    assert loss.classification.item() == pytest.approx(by_hand / 4, rel=1e-6)
    assert loss.compute.item() == pytest.approx(0.0625)
    assert loss.total.item() == pytest.approx(by_hand / 4 + 3.0 * 0.0625, rel=1e-6)


def test_label_smoothing_spreads_the_target_over_all_classes() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    skip, keep = -torch.log_softmax(logits, 1)[0].flip(0)
    loss = total_loss(logits, torch.tensor([0]), torch.zeros(()), label_smoothing=0.2)
    assert loss.total.item() == pytest.approx((0.9 * keep + 0.1 * skip).item(), rel=1e-6)


def test_distillation_is_the_divergence_of_softened_answers() -> None:
    own, teacher = torch.randn(6, 4), torch.randn(6, 4)
    softened = torch.softmax(teacher / 2, dim=1)
    expected = 4 * (softened * (softened.log() - torch.log_softmax(own / 2, dim=1))).sum(dim=1).mean()
    torch.testing.assert_close(distillation_loss(own, teacher), expected)
    assert float(distillation_loss(own, own)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_teacher_has_its_share_of_the_classification_loss(share: float) -> None:
    own, teacher, classes, compute = torch.randn(6, 4), torch.randn(6, 4), torch.randint(4, (6,)), torch.tensor(0.5)
    loss = total_loss(own, classes, compute, 2.0, 0.1, teacher, share)
    supervised = F.cross_entropy(own, classes, label_smoothing=0.1)
    torch.testing.assert_close(loss.classification, (1 - share) * supervised + share * distillation_loss(own, teacher))
    torch.testing.assert_close(loss.total, loss.classification + 1.0)


def test_classes_weigh_alike() -> None:
    classes = torch.tensor([0, 0, 0, 0, 1, 2])
    weights = balanced_weights(classes, 3)
    torch.testing.assert_close(weights * torch.bincount(classes), torch.full((3,), 2.0))
    assert torch.isfinite(balanced_weights(classes, 4)).all()


def test_images_count_by_the_weight_of_their_class() -> None:
    own, classes, weights = torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 1, 2]), torch.tensor([0.5, 2.0, 1.0])
    loss = total_loss(own, classes, torch.tensor(0.0), class_weights=weights)
    each = F.cross_entropy(own, classes, reduction="none") * weights[classes]
    torch.testing.assert_close(loss.total, each.sum() / weights[classes].sum())


def test_gradient_closes_gates_above_their_target_and_opens_those_below() -> None:
    decisions = DECISIONS.clone().requires_grad_()
    target_rate_loss(decisions, torch.tensor([0.5, 0.5])).backward()
    assert decisions.grad is not None
    assert (decisions.grad[:, 0] > 0).all()
    assert (decisions.grad[:, 1] < 0).all()
