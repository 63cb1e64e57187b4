from __future__ import annotations

import numpy as np
import pytest

from models.report.sections.depth import accuracy_by_blocks, describe_depth, relate_difficulty
from tests.models.report.measured import measured, subject_of


def _deeper(index: int, _: int) -> tuple[bool, ...]:
    """Later images, which are harder, open more gates."""
    return index >= 100, index >= 200, index >= 300


def test_hard_images_that_go_deeper_are_found() -> None:
    subject = subject_of(400)
    section = describe_depth(subject, measured(subject, _deeper, lambda index: index < 320))
    assert section.findings[0].startswith("Yes: the hardest tenth of each class runs 3.00 (3.00 to 3.00) more blocks")
    assert section.findings[1].startswith("Images run 1 to 4 of 4 blocks, 2.5 on average")
    # The 80 wrong ones run all 4; of the 320 right ones 100 each run 1, 2 and 3 and 20 run 4: 680 / 320.
    assert section.figures["wrong_minus_right"]["value"] == pytest.approx(4 - 680 / 320)
    assert "1.88 (" in section.findings[2]
    assert section.findings[3] == "Accuracy is 100.0% among images that run 1 block and 20.0% among those that run 4."


def test_hard_images_that_go_less_deep_are_told_so() -> None:
    subject = subject_of(400)
    section = describe_depth(subject, measured(subject, _deeper, loss=lambda index: -index))
    assert section.findings[0].startswith("No, the contrary: the hardest tenth of each class runs 3.00")


def test_depth_without_regard_to_difficulty_is_told_so(rng: np.random.Generator) -> None:
    subject = subject_of(400)
    losses = rng.random(400)
    section = describe_depth(subject, measured(subject, _deeper, loss=lambda index: losses[index]))
    assert section.findings[0].startswith("Hard images run as many blocks as easy ones")


def test_class_that_is_hard_and_deep_does_not_decide() -> None:
    subject = subject_of(400)
    plain = measured(subject, lambda _, label: (label > 1, label > 1, True), loss=lambda index: index % 4)
    difficulty = relate_difficulty(plain.answers.evaluation, plain.answers.losses)
    assert difficulty.hard_minus_easy.value == 0
    assert np.isnan(difficulty.correlation.value)


def test_accuracy_is_told_by_number_of_blocks() -> None:
    subject = subject_of(400)
    evaluation = measured(subject, _deeper, lambda index: index % 100 < 75).answers.evaluation
    by_count = accuracy_by_blocks(evaluation)
    assert list(by_count) == [1, 2, 3, 4]
    assert all(images == 100 and accuracy.value == 0.75 for images, accuracy in by_count.values())


def test_galleries_show_the_easiest_and_the_hardest_of_each_class() -> None:
    subject = subject_of(400)
    by_loss, by_depth = describe_depth(subject, measured(subject, _deeper, lambda index: index < 320)).galleries
    assert [label for label, _, _ in by_loss.rows] == ["cat", "dog", "eel", "fox"]
    _, easiest, hardest = by_loss.rows[1]
    assert [image.name for image in easiest] == ["dog/0001.png", "dog/0005.png", "dog/0009.png"]
    assert [image.name for image in hardest] == ["dog/0397.png", "dog/0393.png", "dog/0389.png"]
    assert hardest[0].verdict == "4 blocks, taken for eel"
    assert not hardest[0].correct
    assert easiest[0].verdict == "1 block, right"
    assert easiest[0].path == ((True, False), (False, False))
    assert easiest[0].source.startswith("data:image/webp;base64,")
    assert [image.verdict for image in by_depth.rows[0][2]] == ["4 blocks, taken for dog"] * 3


def test_network_of_one_depth_is_described() -> None:
    subject = subject_of(40, gated=False)
    section = describe_depth(subject, measured(subject, lambda *_: (True, True, True)))
    assert section.findings == ("Every image runs 4 blocks: depth says nothing here about difficulty.",)
