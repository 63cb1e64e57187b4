from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from artifact.gating import Gating
from artifact.manifest import Block
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


@pytest.fixture
def nested() -> Gating:
    """Of a cascade: a gated block, then a network of a gated and an ungated block, then a network of one block."""
    blocks = [
        _block("a", gated=True, macs=100, gate_macs=1),
        _block("two", gated=True, macs=20, kind="network"),
        _block("b", gated=True, macs=200, shortcut_macs=5, gate_macs=2, within="two"),
        _block("c", gated=False, macs=300, within="two"),
        _block("three", gated=True, macs=30, kind="network", within="two"),
        _block("d", gated=False, macs=400, shortcut_macs=7, within="three"),
    ]
    return Gating.of_blocks(blocks, 10, gate_threshold=0.0)


def _block(name: str, **told: Any) -> Block:
    return Block(**{"name": name, "stage": 1, "shortcut_macs": 0, "gate_macs": 0} | told)


def test_what_is_within_a_network_that_was_not_asked_is_not_executed(nested: Gating) -> None:
    opened = np.array([[True, True, True, True], [True, True, False, False], [False, False, True, True]])
    executed = nested.executed(opened)
    assert executed.tolist() == [
        [True, True, True, True, True, True],
        [True, True, False, True, False, False],
        [False, False, False, False, False, False],
    ]
    assert nested.reached(executed).tolist() == [[True] * 4, [True] * 4, [True, True, False, False]]


def test_network_that_was_not_asked_costs_nothing(nested: Gating) -> None:
    assert (nested.total_macs, nested.ungated_macs) == (1075, 1072)
    opened = np.array([[True, True, True, True], [True, True, False, False], [False, False, True, True]])
    spent = nested.spent_macs(nested.executed(opened)).tolist()
    assert spent == [1075, 1075 - 200 - 30 - 407, 10 + 1]


def test_gates_of_a_single_network_are_all_reached(gating: Gating) -> None:
    executed = gating.executed(np.array([[False, False], [True, False]]))
    assert gating.reached(executed).all()
