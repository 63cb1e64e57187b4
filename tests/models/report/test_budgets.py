from __future__ import annotations

import numpy as np
import pytest

from models.answers import Images, answer
from models.classifier import TrainedClassifier
from models.report.budgets import budget_offsets, run_budgets


def test_offsets_open_about_the_share_of_gates_they_are_for(rng: np.random.Generator) -> None:
    margins = rng.normal(1, 3, (500, 4)).astype(np.float32)
    offsets = budget_offsets(margins, 0.5, 0.25)
    assert offsets == sorted(offsets)
    assert 0.25 in offsets
    shares = [(margins + offset > 0.5).mean() for offset in offsets]
    assert shares[0] == 0
    assert shares[-1] == 1
    between = [share for share, offset in zip(shares, offsets, strict=True) if abs(offset) < 1e9 and offset != 0.25]
    assert between == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], abs=0.02)


def test_network_without_gates_has_one_budget_only(hand_built: TrainedClassifier, grey: Images) -> None:
    assert budget_offsets(np.zeros((10, 0), np.float32), 0.0, 0.0) == []
    assert run_budgets(hand_built, grey, np.arange(4), []) == []


def test_budget_tells_what_the_network_does_at_its_offset(hand_built: TrainedClassifier, grey: Images) -> None:
    # Margins of the three gates: above 0 for light images, 2, -3.
    budgets = run_budgets(hand_built, grey, np.arange(40), [-1e9, -2.5, 0.0, 3.5])
    light = np.tile([0, 1], 20)
    assert [budget.executed_blocks.tolist() for budget in budgets] == [
        [0] * 40,
        [0] * 40,
        (1 + light).tolist(),
        [3] * 40,
    ]
    assert [budget.label for budget in budgets] == ["all gates closed", "-2.5", "0", "+3.5"]
    evaluation = answer(hand_built, grey).evaluation
    np.testing.assert_allclose(budgets[2].mac_share, evaluation.mac_share)
    assert budgets[2].correct.tolist() == evaluation.correct.tolist()
