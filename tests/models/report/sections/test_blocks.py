from __future__ import annotations

import math

import numpy as np
import pytest

from models.report.sections.blocks import block_uses, describe_blocks, explained_share
from tests.models.report.measured import measured, subject_of


def _cats_only(index: int, label: int) -> tuple[bool, ...]:
    """Gate 1 opens for cats, gate 2 for every image, gate 3 for half of each class."""
    return label == 0, True, (index // 4) % 2 == 0


def test_kinds_of_blocks_are_told_apart() -> None:
    subject = subject_of(400)
    evaluation = measured(subject, _cats_only).answers.evaluation
    uses = block_uses(evaluation, subject.classifier.structure.gated)
    assert [use.kind for use in uses] == ["no gate", "by class", "nearly always", "by image"]
    assert [use.rate for use in uses] == [1, 0.25, 1, 0.5]
    assert (uses[1].highest, uses[1].highest_rate, uses[1].lowest_rate, uses[1].spread) == (0, 1, 0, 1)
    assert uses[1].explained == pytest.approx(1, abs=0.02)
    assert uses[3].explained == 0


def test_block_that_never_runs_is_named_so() -> None:
    subject = subject_of(400)
    evaluation = measured(subject, lambda *_: (False, True, True)).answers.evaluation
    assert block_uses(evaluation, subject.classifier.structure.gated)[1].kind == "nearly never"


def test_findings_name_the_strongest_specialist() -> None:
    subject = subject_of(400)
    section = describe_blocks(subject, measured(subject, _cats_only))
    assert section.findings[0] == (
        "Of the 4 blocks, 1 runs for nearly every image, 1 runs far more often for some classes than for others, "
        "1 chooses by image with less regard to the class and 1 runs always, without a gate."
    )
    assert "stage1_block2 (100% of cat, 0% of dog)" in section.findings[1]
    assert section.figures["class_rates"]["eel"]["stage2_block2"] == 0.5
    assert section.figures["distinct_paths"] == 4


def test_explained_share_is_the_mutual_information_over_the_entropy() -> None:
    # Open for 3/4 of one class and 1/4 of the other: 1 - H(1/4) / H(1/2), but for the correction.
    classes = np.repeat([0, 1], 4000)
    executed = np.tile([True, True, True, False], 1000).tolist() + np.tile([True, False, False, False], 1000).tolist()
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert explained_share(np.array(executed), classes) == pytest.approx(1 - quarter / math.log(2), abs=1e-3)


def test_chance_explains_nothing_even_with_few_images(rng: np.random.Generator) -> None:
    shares = [explained_share(rng.random(60) < 0.5, np.arange(60) % 6) for _ in range(200)]
    assert np.median(shares) < 0.02  # without the correction it would be about 0.06


def test_class_with_few_images_is_not_called_extreme() -> None:
    subject = subject_of(400)
    plain = measured(subject, lambda index, _: (index < 3, True, True)).answers.evaluation
    plain.classes[:] = [3] * 3 + [0] * 200 + [1] * 197
    use = block_uses(plain, subject.classifier.structure.gated)[1]
    assert {use.lowest, use.highest} <= {0, 1}


def test_network_without_gates_is_described() -> None:
    subject = subject_of(40, gated=False)
    section = describe_blocks(subject, measured(subject, lambda *_: (True, True, True)))
    assert section.findings == ("None of the 4 blocks has a gate: all run for every image.",)
    assert len(section.charts) == 1
