from __future__ import annotations

import pytest
from pydantic import ValidationError

from artifact.budgets import BudgetCurve
from tests.budgets import BUDGETS, budget


@pytest.mark.parametrize(
    ("share", "offset"), [(1.0, 1e4), (0.99, 0.0), (0.7, 0.0), (0.69, -1.0), (0.5, -1.0), (0.3, -1e4)]
)
def test_budget_is_the_largest_within_a_share(share: float, offset: float) -> None:
    found = BUDGETS.within(share)
    assert found is not None
    assert found.gate_offset == offset


def test_no_budget_is_below_the_least() -> None:
    assert BUDGETS.least == 0.3
    assert BUDGETS.within(0.29) is None


@pytest.mark.parametrize(("accuracy", "offset"), [(0.6, -1e4), (0.85, -1.0), (0.86, 0.0), (0.89, 1e4)])
def test_budget_of_an_accuracy_is_the_cheapest_that_has_it(accuracy: float, offset: float) -> None:
    found = BUDGETS.at_least(accuracy)
    assert found is not None
    assert found.gate_offset == offset


def test_no_budget_has_more_than_the_best_accuracy() -> None:
    assert BUDGETS.at_least(0.9) is None


def test_offsets_must_rise() -> None:
    for rows in ((budget(0.0, 0.5, 0.8), budget(-1.0, 0.3, 0.7)), (budget(0.0, 0.5, 0.8),) * 2):
        with pytest.raises(ValidationError, match="do not rise"):
            BudgetCurve(images=10, rows=rows)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_are_shares(share: float) -> None:
    with pytest.raises(ValidationError):
        budget(0.0, 0.5, 0.8).model_validate(budget(0.0, 0.5, 0.8).model_dump() | {"mac_share": share})
