from __future__ import annotations

import pytest

from service.engine.health import Health


@pytest.mark.parametrize(
    ("ends", "failing"),
    [("", False), ("ff", False), ("fff", True), ("ffsff", False), ("fffs", False), ("sffff", True)],
)
def test_three_failures_in_a_row_are_a_failing_model(ends: str, failing: bool) -> None:
    health = Health()
    for end in ends:
        health.note(succeeded=end == "s")
    assert health.failing is failing
