from __future__ import annotations

import pytest
from pydantic_settings import SettingsError

from artifact.manifest import Manifest
from service.classify.budgets import Budgets, Wish, budget_in, limits_to
from service.engine.inference_cost import InferenceCost
from service.errors import ApiError
from tests.budgets import BUDGETS
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


def test_limit_takes_from_those_who_allow_it_and_says_so(manifest: Manifest, cost: InferenceCost) -> None:
    budgets = Budgets(manifest, None, cost)
    limited = budgets.plan(Wish(1.0), 0.0, limit=0.5)
    assert (limited.gate_offset, limited.degraded) == (-1.0, True)
    never = budgets.plan(Wish(1.0, may_degrade=False), 0.0, limit=0.5)
    assert (never.gate_offset, never.degraded) == (1e4, False)
    less = budgets.plan(Wish(0.3), 0.0, limit=0.5)
    assert (less.gate_offset, less.degraded) == (-1e4, False)
    trained = budgets.plan(Wish(), 0.0, limit=0.7)
    assert (trained.gate_offset, trained.degraded) == (0.0, False)


def test_offset_that_is_asked_for_goes_before_budgets_and_can_be_limited(
    manifest: Manifest, cost: InferenceCost
) -> None:
    budgets = Budgets(manifest, 0.5, cost)
    assert budgets.plan(Wish(1.0, gate_offset=-0.25), 0.0).gate_offset == -0.25
    limited = budgets.plan(Wish(gate_offset=2.0), 0.0, limit=0.5)
    assert (limited.gate_offset, limited.degraded) == (-1.0, True)
    never = budgets.plan(Wish(gate_offset=2.0, may_degrade=False), 0.0, limit=0.5)
    assert (never.gate_offset, never.degraded) == (2.0, False)
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
    assert limits_to(manifest, budget, accuracy) == shares


def test_floor_that_cannot_be_had_is_refused(manifest: Manifest) -> None:
    with pytest.raises(SettingsError, match=r"this model's best is 0\.89"):
        limits_to(manifest, None, 0.95)
    for floor in ((0.5, None), (None, 0.8)):
        with pytest.raises(SettingsError, match="exported with budgets"):
            limits_to(echo_manifest(), *floor)
