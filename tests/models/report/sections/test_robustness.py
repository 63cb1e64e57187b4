from __future__ import annotations

from dataclasses import replace

import pytest

from models.report.sections.robustness import describe_robustness
from tests.models.report.measured import attacks, measured, subject_of


def test_without_a_checkpoint_it_says_how_to_get_there() -> None:
    subject = subject_of(40)
    section = describe_robustness(subject, measured(subject, lambda *_: (True,) * 3))
    assert section.findings == ("This was not measured.",)
    assert "give the checkpoint" in section.missing[0]


@pytest.mark.parametrize(
    ("ungated", "words"),
    [
        (
            (0, 80, 200, 320, 380),
            "It holds better at ε = 1, ε = 2 and ε = 4 than the network without gates: +10.0 points",
        ),
        (
            (0, 10, 200, 230, 380),
            "It holds better at ε = 2 and worse at ε = 1 and ε = 4 than the network without gates",
        ),
        ((0, 41, 121, 281, 381), "It holds neither better nor worse, as far as can be told, than"),
    ],
)
def test_both_networks_are_compared_at_every_strength(ungated: tuple[int, ...], words: str) -> None:
    subject = subject_of(400)
    plain = measured(subject, lambda *_: (True,) * 3)
    section = describe_robustness(subject, replace(plain, attacks=attacks(400, (0, 40, 120, 280, 380), ungated)))
    assert section.findings[1].startswith(words)
    gaps = [gap["value"] for gap in section.figures["gated_minus_ungated"]]
    assert gaps == pytest.approx(
        [(count - own) / 400 for own, count in zip((0, 40, 120, 280, 380), ungated, strict=True)]
    )


def test_network_alone_is_described_and_says_what_is_missing() -> None:
    subject = subject_of(400)
    plain = measured(subject, lambda *_: (True,) * 3)
    section = describe_robustness(subject, replace(plain, attacks=attacks(400, (0, 40, 120, 150, 160))))
    assert (
        "from 100.0% down to 90.0% at ε = 1, 70.0% at ε = 2, 62.5% at ε = 4 and 60.0% at ε = 8" in section.findings[0]
    )
    assert "by chance leaves 100.0% at ε = 8" in section.findings[0]
    # Twice as many images as turned have one gate of three changed.
    assert "At ε = 1 the attack changes 6.7% of the gates and 10.0% of the predictions" in section.findings[1]
    assert "--ungated" in section.missing[0]
