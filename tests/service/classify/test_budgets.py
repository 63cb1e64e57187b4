from __future__ import annotations

import pytest
from pydantic_settings import SettingsError

from artifact.budgets import BudgetCurve
from artifact.manifest import Manifest
from service.classify.budgets import Budgets, Wish, budget_in, limits_to
from service.engine.inference_cost import InferenceCost
from service.engine.queueing.budget_limit import WHOLE
from service.errors import ApiError
from tests.budgets import BUDGETS, budget
from tests.runtimes import echo_manifest


@pytest.fixture
def manifest() -> Manifest:
    return echo_manifest().model_copy(update={"budgets": BUDGETS, "total_macs": 10**8})


@pytest.fixture
def cost() -> InferenceCost:
    """A millisecond for ten million multiply-accumulates, and one for decoding."""
    known = InferenceCost()
    for macs in (10, 50, 90):
        known.note(macs * 10**6, macs / 10_000, decode_s=0.001)
    return known


@pytest.mark.parametrize(("budget", "offset"), [(None, 0.0), (1.0, 1e4), (0.6, -1.0), (0.3, -1e4)])
def test_budget_is_the_offset_that_was_measured(
    manifest: Manifest, cost: InferenceCost, budget: float | None, offset: float
) -> None:
    plan = Budgets(manifest, None, cost).plan(Wish(budget), elapsed_s=0.0)
    assert (plan.gate_offset, plan.wish) == (offset, Wish(budget))


def test_default_is_for_those_who_ask_for_nothing(manifest: Manifest, cost: InferenceCost) -> None:
    budgets = Budgets(manifest, 0.5, cost)
    assert budgets.plan(Wish(), 0.0).gate_offset == -1.0
    assert budgets.plan(Wish(0.8), 0.0).gate_offset == 0.0


# Inference at the 95th percentile takes 4, 6, 8 and 10 ms, decoding 1 ms.
@pytest.mark.parametrize(
    ("max_latency_ms", "elapsed_s", "offset"),
    [(50, 0.0, 0.0), (9.5, 0.0, 0.0), (8.5, 0.0, -1.0), (6.5, 0.0, -1e4), (0.1, 0.0, -1e4), (20, 0.013, -1.0)],
)
def test_latency_takes_the_largest_budget_that_fits_into_what_is_left(
    manifest: Manifest, cost: InferenceCost, max_latency_ms: float, elapsed_s: float, offset: float
) -> None:
    plan = Budgets(manifest, None, cost).plan(Wish(None, max_latency_ms), elapsed_s)
    assert plan.gate_offset == offset


def test_smaller_of_budget_and_latency_counts(manifest: Manifest, cost: InferenceCost) -> None:
    budgets = Budgets(manifest, None, cost)
    assert budgets.plan(Wish(1.0, 50.0), 0.0).gate_offset == 1e4
    assert budgets.plan(Wish(1.0, 9.5), 0.0).gate_offset == 0.0
    assert budgets.plan(Wish(0.5, 50.0), 0.0).gate_offset == -1.0


def test_unknown_times_fit_any_latency(manifest: Manifest) -> None:
    assert Budgets(manifest, None, InferenceCost()).plan(Wish(1.0, 0.5), 0.0).gate_offset == 1e4


def test_budget_below_the_least_is_refused(manifest: Manifest, cost: InferenceCost) -> None:
    with pytest.raises(ApiError, match=r"spends 0\.3 of its compute at least") as refused:
        Budgets(manifest, None, cost).plan(Wish(0.2), 0.0)
    assert (refused.value.status, refused.value.type) == (422, "invalid_budget")
    with pytest.raises(SettingsError, match=r"default_budget: this model spends 0\.3"):
        Budgets(manifest, 0.2, cost)


def test_model_without_budgets_refuses_them(cost: InferenceCost) -> None:
    budgets = Budgets(echo_manifest(), None, cost)
    assert budgets.plan(Wish(), 0.0).gate_offset == 0.0
    for wish in (Wish(0.5), Wish(None, 10.0)):
        with pytest.raises(ApiError, match="exported without budgets"):
            budgets.plan(wish, 0.0)
    with pytest.raises(SettingsError, match="exported without budgets"):
        Budgets(echo_manifest(), 0.5, cost)


@pytest.mark.parametrize("text", ["0.25", "1", " 1.0 ", "1e-2"])
def test_budget_of_a_header_is_a_number(text: str) -> None:
    assert budget_in(text, "it") == float(text)


@pytest.mark.parametrize("text", ["", "half", "0", "-0.5", "1.01", "nan", "inf", "0,5", "1_0", "1" * 16_000 + "x"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="it must be a number above 0 and at most 1"):
        budget_in(text, "it")


def test_plan_says_whether_an_image_was_run_with_less_than_was_asked_for(
    manifest: Manifest, cost: InferenceCost
) -> None:
    plan = Budgets(manifest, None, cost).plan(Wish(1.0), 0.0)
    limited = plan.as_run(-1.0)
    assert (limited.wish, limited.gate_offset, limited.degraded) == (Wish(1.0), -1.0, True)
    assert plan.as_run(plan.gate_offset) == plan
    assert not plan.degraded


def test_offset_that_is_asked_for_goes_before_budgets(manifest: Manifest, cost: InferenceCost) -> None:
    budgets = Budgets(manifest, 0.5, cost)
    assert budgets.plan(Wish(1.0, gate_offset=-0.25), 0.0).gate_offset == -0.25
    assert Budgets(echo_manifest(), None, cost).plan(Wish(gate_offset=2.0), 0.0).gate_offset == 2.0


@pytest.mark.parametrize(
    ("budget", "accuracy", "shares"),
    [
        (None, None, [1.0]),
        (0.5, None, [1.0, 0.7, 0.5]),
        (0.1, None, [1.0, 0.7, 0.5, 0.3]),
        (None, 0.85, [1.0, 0.7, 0.5]),
        (0.3, 0.88, [1.0, 0.7]),
        (None, 0.89, [1.0]),
    ],
)
def test_images_are_limited_to_what_the_operator_allows(
    manifest: Manifest, budget: float | None, accuracy: float | None, shares: list[float]
) -> None:
    steps = limits_to(manifest, budget, accuracy)
    assert steps[0] == WHOLE
    assert [step.share for step in steps] == shares
    offsets = {row.mac_share: row.gate_offset for row in BUDGETS.rows}
    assert [step.gate_offset for step in steps[1:]] == [offsets[share] for share in shares[1:]]


def test_step_that_was_measured_to_spend_more_than_the_one_before_is_left_out(manifest: Manifest) -> None:
    rows = (budget(-3.0, 0.3, 0.7), budget(-2.0, 0.6, 0.84), budget(-1.0, 0.55, 0.85), budget(1e4, 1.0, 0.89))
    curve = BudgetCurve(images=1000, rows=rows)
    steps = limits_to(manifest.model_copy(update={"budgets": curve}), 0.3, None)
    assert [step.gate_offset for step in steps[1:]] == [-1.0, -3.0]


def test_floor_that_cannot_be_had_is_refused(manifest: Manifest) -> None:
    with pytest.raises(SettingsError, match=r"this model's best is 0\.89"):
        limits_to(manifest, None, 0.95)
    for floor in ((0.5, None), (None, 0.8)):
        with pytest.raises(SettingsError, match="exported with budgets"):
            limits_to(echo_manifest(), *floor)
