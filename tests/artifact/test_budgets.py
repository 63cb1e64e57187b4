from __future__ import annotations

import pytest
from pydantic import ValidationError

from artifact.budgets import Accuracy, BudgetCurve
from artifact.manifest import Manifest
from tests.budgets import BUDGETS, budget
from tests.runtimes import echo_manifest


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


def test_accuracy_is_within_its_interval() -> None:
    with pytest.raises(ValidationError, match="not within its interval"):
        Accuracy(value=0.5, low=0.6, high=0.7)


def test_budgets_that_no_image_can_spend_are_refused() -> None:
    told = echo_manifest().model_dump()
    for wrong in (budget(-1.0, 0.1, 0.8), budget(1e4, 0.9, 0.8)):
        with pytest.raises(ValidationError, match="no image spends"):
            Manifest.model_validate(told | {"budgets": {"images": 200, "rows": [wrong.model_dump()]}})
    right = {"images": 1000, "rows": [row.model_dump() for row in BUDGETS.rows]}
    read = Manifest.model_validate(told | {"budgets": right}).budgets
    assert read is not None
    assert read.model_dump() == BUDGETS.model_dump()


def test_curve_without_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most 200"):
        BudgetCurve(images=10, rows=tuple(budget(float(number), 0.5, 0.8) for number in range(201)))
