from __future__ import annotations

import math

import pytest

from models.intervals import Estimate
from models.report.wording import counted, json_estimate, listed, number, percent, percent_interval, points_interval

MINUS = "\N{MINUS SIGN}"


def test_share_is_told_with_its_interval_where_it_has_one() -> None:
    assert percent_interval(Estimate(0.883, 0.8738, 0.8916)) == "88.3% (87.4% to 89.2%)"
    assert percent_interval(Estimate(0.5)) == "50.0%"
    assert percent(math.nan) == "n/a"


def test_difference_always_has_its_sign() -> None:
    text = points_interval(Estimate(0.0006, -0.0067, 0.0079))
    assert text == f"+0.06 points ({MINUS}0.67 to +0.79)"
    assert points_interval(Estimate(-0.01)) == f"{MINUS}1.00 points"


def test_zero_has_no_sign() -> None:
    assert points_interval(Estimate(-0.00001)) == "0.00 points"
    assert number(-0.001) == "0.00"


@pytest.mark.parametrize(
    ("names", "text"), [(["cat"], "cat"), (["cat", "dog"], "cat and dog"), (list("abc"), "a, b and c")]
)
def test_names_are_listed_as_in_a_sentence(names: list[str], text: str) -> None:
    assert listed(names) == text


def test_counts_have_their_plural() -> None:
    assert [counted(1, "block"), counted(2000, "image"), counted(2, "class")] == [
        "1 block",
        "2,000 images",
        "2 classes",
    ]


def test_missing_bounds_are_null_in_json() -> None:
    assert json_estimate(Estimate(0.5)) == {"value": 0.5, "low": None, "high": None}
