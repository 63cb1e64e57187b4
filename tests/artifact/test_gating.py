from __future__ import annotations

import numpy as np
import pytest

from artifact.gating import Gating
from tests.runtimes import echo_manifest

MARGINS = np.array([[1, -1], [0.5, 0]], np.float32)


@pytest.fixture
def gating() -> Gating:
    """Of three blocks, the last two gated, whose residuals cost 100, 200 and 300 of 618; without gates 615."""
    return echo_manifest().gating


def test_gate_is_open_above_the_threshold_and_not_at_it(gating: Gating) -> None:
    assert gating.opened(MARGINS).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize(
    ("offsets", "opened"),
    [
        (1.5, [[True, True], [True, True]]),
        (-1.0, [[False, False], [False, False]]),
        (np.array([-1, 1], np.float32), [[False, False], [True, True]]),
    ],
)
def test_offset_is_one_for_all_images_or_one_for_each(
    gating: Gating, offsets: float | np.ndarray, opened: list[list[bool]]
) -> None:
    assert gating.opened(MARGINS, offsets).tolist() == opened


def test_skipped_blocks_are_not_paid_for_and_gates_always_are(gating: Gating) -> None:
    executed = gating.executed(np.array([[True, True], [False, True], [False, False]]))
    assert executed.tolist() == [[True, True, True], [True, False, True], [True, False, False]]
    assert gating.spent_macs(executed).tolist() == [618, 418, 118]
    np.testing.assert_allclose(gating.mac_share(executed), [618 / 615, 418 / 615, 118 / 615])
