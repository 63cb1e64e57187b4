from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from models.loss import balanced_weights, distillation_loss, feature_distance, target_rate_loss, total_loss
from models.resnet import Output

# Execution rates 0.75 and 0.25 of two gates over four images.
DECISIONS = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])


def _output(logits: torch.Tensor, features: torch.Tensor | None = None) -> Output:
    nothing = logits.new_empty((len(logits), 0))
    return Output(logits, nothing, nothing, nothing if features is None else features)


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
    loss = total_loss(_output(logits), torch.tensor(classes), compute, target_weight=3.0)
    assert loss.classification.item() == pytest.approx(by_hand / 4, rel=1e-6)
    assert loss.compute.item() == pytest.approx(0.0625)
    assert loss.total.item() == pytest.approx(by_hand / 4 + 3.0 * 0.0625, rel=1e-6)


def test_label_smoothing_spreads_the_target_over_all_classes() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    skip, keep = -torch.log_softmax(logits, 1)[0].flip(0)
    loss = total_loss(_output(logits), torch.tensor([0]), torch.zeros(()), label_smoothing=0.2)
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
    loss = total_loss(_output(own), classes, compute, 2.0, 0.1, _output(teacher), share)
    supervised = F.cross_entropy(own, classes, label_smoothing=0.1)
    torch.testing.assert_close(loss.classification, (1 - share) * supervised + share * distillation_loss(own, teacher))
    torch.testing.assert_close(loss.total, loss.classification + 1.0)


def test_features_are_compared_as_a_share_of_what_tells_images_apart() -> None:
    teacher = torch.randn(64, 8)
    assert feature_distance(teacher, teacher) == 0
    nothing_known = teacher.mean(dim=0).expand(64, 8)
    assert float(feature_distance(nothing_known, teacher)) == pytest.approx(63 / 64, rel=1e-4)
    torch.testing.assert_close(
        feature_distance(3 * nothing_known, 3 * teacher), feature_distance(nothing_known, teacher)
    )
    assert torch.isfinite(feature_distance(torch.ones(4, 8), torch.zeros(4, 8)))


def test_features_of_a_teacher_weigh_beside_the_classification() -> None:
    own, teacher = (_output(torch.randn(6, 4), torch.randn(6, 8)) for _ in range(2))
    arguments = (own, torch.randint(4, (6,)), torch.tensor(0.5), 2.0, 0.1, teacher, 0.5)
    without, loss = total_loss(*arguments), total_loss(*arguments, feature_weight=3.0)
    expected = 3.0 * feature_distance(own.features, teacher.features)
    torch.testing.assert_close(loss.total - without.total, expected)


def test_classes_weigh_alike() -> None:
    classes = torch.tensor([0, 0, 0, 0, 1, 2])
    weights = balanced_weights(classes, 3)
    torch.testing.assert_close(weights * torch.bincount(classes), torch.full((3,), 2.0))
    assert torch.isfinite(balanced_weights(classes, 4)).all()


def test_images_count_by_the_weight_of_their_class() -> None:
    own, classes, weights = torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 1, 2]), torch.tensor([0.5, 2.0, 1.0])
    loss = total_loss(_output(own), classes, torch.tensor(0.0), class_weights=weights)
    each = F.cross_entropy(own, classes, reduction="none") * weights[classes]
    torch.testing.assert_close(loss.total, each.sum() / weights[classes].sum())


def test_gradient_closes_gates_above_their_target_and_opens_those_below() -> None:
    decisions = DECISIONS.clone().requires_grad_()
    target_rate_loss(decisions, torch.tensor([0.5, 0.5])).backward()
    assert decisions.grad is not None
    assert (decisions.grad[:, 0] > 0).all()
    assert (decisions.grad[:, 1] < 0).all()
