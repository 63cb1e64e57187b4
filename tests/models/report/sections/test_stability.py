from __future__ import annotations

from dataclasses import replace

from models.report.sections.stability import describe_stability
from tests.models.report.measured import measured, response, subject_of


def test_least_and_most_disturbing_changes_are_named() -> None:
    subject = subject_of(400)
    changes = [
        response("mirrored", 400, 40, 30, 120),
        response("darker", 400, 80, 90, 240),
        response("noise", 400, 0, 6, 24),
    ]
    section = describe_stability(subject, replace(measured(subject, lambda *_: (True,) * 3), changes=changes))
    assert section.findings == (
        "Over 3 small changes, 10.7% of the gates and 10.5% of the predictions change on average.",
        "The path changes most under “darker” (20.0% of the gates, 22.5% of the predictions) and least under “noise” "
        "(2.0% and 1.5%).",
        "The whole path stays as it is for 40% to 94% of the images.",
    )
    assert section.figures["changes"]["mirrored"]["accuracy"]["value"] == 0.9
    assert section.tables[0].rows[0][:4] == ("mirrored", "10.0%", "70.0%", "7.5%")


def test_network_without_gates_has_predictions_only() -> None:
    subject = subject_of(40, gated=False)
    changes = [response("mirrored", 40, turned=10, gates=0)]
    section = describe_stability(subject, replace(measured(subject, lambda *_: (True,) * 3), changes=changes))
    assert section.findings == ("Without gates there is no path to change; 25.0% of predictions change.",)
    assert section.figures["changes"]["mirrored"]["changed_gates"]["value"] is None
