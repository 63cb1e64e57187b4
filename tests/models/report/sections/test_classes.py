from __future__ import annotations

import numpy as np
import pytest

from models.report.sections.classes import compared_groups, describe_classes
from tests.models.report.measured import measured, subject_of

PETS_AND_WILD = {"pets": ("cat", "dog"), "wild animals": ("eel", "fox")}


def _more_for_pets(index: int, label: int) -> tuple[bool, ...]:
    """Cats and dogs need 3 or 4 blocks in turn, the others 2 or 3."""
    return label < 2, True, (index // 4) % 2 == 0


def test_groups_are_compared_with_their_interval() -> None:
    subject = subject_of(400, PETS_AND_WILD)
    section = describe_classes(subject, measured(subject, _more_for_pets))
    pets = section.figures["groups"]["pets"]
    assert pets["executed_blocks"]["value"] == pytest.approx(3.5)
    assert pets["minus_other_groups"]["value"] == pytest.approx(1)
    # Both groups of 200 have a variance of 1/4 (by 199): half a width of 1.96 * sqrt(2 * 0.25 / 199).
    assert pets["minus_other_groups"]["low"] == pytest.approx(1 - 1.96 * np.sqrt(0.5 / 199), abs=1e-6)
    assert (
        section.findings[1] == "The pets need 3.50 blocks on average, 1.00 (0.90 to 1.10) more than the wild animals."
    )
    assert section.missing == ()


def test_fewer_blocks_are_told_as_fewer() -> None:
    subject = subject_of(400, {"wild animals": ("eel", "fox"), "pets": ("cat", "dog")})
    section = describe_classes(subject, measured(subject, _more_for_pets))
    assert section.findings[1].endswith("1.00 (0.90 to 1.10) fewer than the pets.")


def test_groups_that_do_not_differ_are_told_so() -> None:
    subject = subject_of(400, PETS_AND_WILD)
    section = describe_classes(subject, measured(subject, lambda index, _: (True, True, (index // 4) % 2 == 0)))
    assert "no more and no fewer than the wild animals as far as can be told" in section.findings[1]


def test_class_in_no_group_is_compared_with_none() -> None:
    subject = subject_of(400)
    evaluation = measured(subject, _more_for_pets).answers.evaluation
    groups = compared_groups(evaluation, {"cats": ("cat",), "eels": ("eel",)})
    assert groups["cats"][1].value == pytest.approx(1)
    assert groups["eels"][1].value == pytest.approx(-1)
    assert compared_groups(evaluation, {"cats": ("cat",)}) == {}


def test_deepest_and_shallowest_class_are_named() -> None:
    subject = subject_of(400)
    section = describe_classes(subject, measured(subject, lambda index, label: (label == 2, label < 3, index % 8 < 4)))
    assert "fox needs the fewest, 1.50" in section.findings[0]
    assert "eel the most, 3.50" in section.findings[0]
    assert list(section.figures["classes"]) == ["fox", "cat", "dog", "eel"]
    assert "--groups" in section.missing[0]


def test_network_without_gates_is_described() -> None:
    subject = subject_of(40, gated=False)
    section = describe_classes(subject, measured(subject, lambda *_: (True, True, True)))
    assert "same number of blocks" in section.findings[0]
