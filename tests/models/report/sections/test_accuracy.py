from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.report.sections.accuracy import describe_accuracy
from models.report.soft_gates import BY_PROBABILITY
from tests.models.report.measured import budget, measured, subject_of


def _hits(count: int) -> np.ndarray:
    return np.arange(400) < count


def test_figures_are_those_of_the_evaluation() -> None:
    subject = subject_of(400)
    section = describe_accuracy(subject, measured(subject, lambda *_: (True, False, True), lambda index: index < 320))
    assert section.figures["accuracy"]["value"] == 0.8
    assert section.figures["executed_blocks"] == 3
    assert section.findings[0].startswith("It classifies 80.0% (75.8% to 83.6%) of 400 images correctly")
    cost = section.figures["mac_share"]
    assert f"spends {cost:.1%} of the compute" in section.findings[0]
    assert len(section.missing) == 3


@pytest.mark.parametrize(
    ("ungated", "words"),
    [
        (300, "+5.00 points"),
        (300, "more than chance explains"),
        (322, "which chance may explain"),
        (340, "more than chance"),
    ],
)
def test_network_without_gates_is_compared_image_by_image(ungated: int, words: str) -> None:
    subject = subject_of(400)
    subject = replace(subject, ungated=subject.classifier)
    plain = measured(subject, lambda *_: (True, True, True), lambda index: index < 320)
    section = describe_accuracy(subject, replace(plain, ungated_hits=_hits(ungated)))
    assert words in section.findings[1]
    assert section.figures["ungated"]["gated_minus_this"]["value"] == pytest.approx((320 - ungated) / 400)


@pytest.mark.parametrize(
    ("scaled", "words"),
    [
        (280, "the gates do more than regularise"),
        (321, "a difference that chance may explain"),
        (360, "executing everything answers better"),
    ],
)
def test_executing_everything_tells_choice_from_regularisation(scaled: int, words: str) -> None:
    subject = subject_of(400)
    plain = measured(subject, lambda *_: (True, True, False), lambda index: index < 320)
    section = describe_accuracy(subject, replace(plain, scaled_hits={BY_PROBABILITY: _hits(scaled)}))
    assert words in section.findings[1]


def test_cheapest_budget_within_a_point_is_named() -> None:
    subject = subject_of(400)
    plain = measured(subject, lambda *_: (True, True, True), lambda index: index < 320)
    full = float(plain.answers.evaluation.mac_share.mean())
    budgets = [
        budget(-1e9, 400, 100, 0.2),
        budget(-0.5, 400, 317, 0.6),
        budget(-0.1, 400, 319, 0.8),
        budget(0, 400, 320, full),
    ]
    section = describe_accuracy(subject, replace(plain, budgets=budgets))
    assert "at gate offset -0.5 it spends 60.0%" in section.findings[-1]
    assert "\N{MINUS SIGN}0.75 points" in section.findings[-1]
    assert [row[0] for row in section.tables[0].rows] == ["all gates closed", "-0.5", "-0.1", "0"]
    section = describe_accuracy(subject, replace(plain, budgets=[budgets[0], budgets[3]]))
    assert section.findings[-1].startswith("No cheaper setting")
