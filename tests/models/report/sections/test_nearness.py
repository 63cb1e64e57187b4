from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.report.sections.nearness import describe_nearness
from tests.models.report.measured import measured, subject_of


def _opened(index: int, _: int) -> tuple[bool, ...]:
    return True, index % 2 == 0, False


def test_images_near_the_threshold_are_counted() -> None:
    subject = subject_of(400)
    plain = measured(subject, _opened)
    margins = plain.answers.evaluation.margins
    margins[:30, 0] = 0.0005
    margins[10:40, 2] = -0.0009  # of these 20 are the same images
    margins[50, 1] = 0.0011
    section = describe_nearness(subject, plain)
    assert section.figures["images_with_a_decision_within_tolerance"]["value"] == 0.1
    assert section.figures["decisions_within_tolerance"] == pytest.approx(60 / 1200)
    assert section.figures["blocks"]["stage1_block2"]["within_tolerance"] == pytest.approx(30 / 400)
    assert section.findings[0].startswith("10.00% (7.43% to 13.33%) of the images")


def test_tolerance_grows_with_the_largest_margin() -> None:
    subject = subject_of(400)
    plain = measured(subject, _opened)
    margins = plain.answers.evaluation.margins
    margins[:20] = 0.005
    assert describe_nearness(subject, plain).figures["decisions_within_tolerance"] == 0
    margins[20, 1] = 10  # ten times as large: 0.01 is near now for this gate
    assert describe_nearness(subject, plain).figures["decisions_within_tolerance"] == pytest.approx(20 / 1200)


def test_distance_is_from_the_threshold_with_the_offset() -> None:
    subject = replace(subject_of(400), gate_offset=-0.9)
    section = describe_nearness(subject, measured(subject, _opened))
    quantiles = section.figures["blocks"]["stage1_block2"]["distance_quantiles"]
    assert list(quantiles.values()) == pytest.approx([0.1] * 5)
    assert section.figures["blocks"]["stage2_block2"]["median_absolute_distance"] == pytest.approx(1.9)


def test_every_decision_is_in_the_histogram() -> None:
    subject = subject_of(400)
    plain = measured(subject, _opened)
    plain.answers.evaluation.margins[0, 0] = 50  # far beyond the others, shown at the edge
    axes = describe_nearness(subject, plain).charts[0].figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 1200
    closed = [bar for bar in axes.patches if bar.get_height() and bar.get_x() < 0]
    assert sum(bar.get_height() for bar in closed) == np.sum(plain.answers.evaluation.margins < 0)


def test_network_without_gates_has_nothing_to_decide() -> None:
    subject = subject_of(40, gated=False)
    section = describe_nearness(subject, measured(subject, lambda *_: (True,) * 3))
    assert section.figures == {}
    assert section.charts == ()
