from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifact.manifest import read_manifest
from models.macs import count_macs
from models.structure import Structure
from tests.networks import small_config


def test_exported_network_has_the_structure_of_its_config(artifact: Path) -> None:
    trained, exported = Structure.of_config(small_config()), Structure.of_manifest(read_manifest(artifact))
    for name in ("name", "labels", "preprocessing", "block_names", "total_macs", "ungated_macs", "gate_threshold"):
        assert getattr(trained, name) == getattr(exported, name)
    assert trained.gated.tolist() == exported.gated.tolist() == [1, 2, 3, 4]
    assert trained.skippable_macs.tolist() == exported.skippable_macs.tolist()


def test_block_without_a_gate_is_always_executed() -> None:
    structure = Structure.of_config(small_config())
    opened = structure.opened(np.array([[0.5, -0.5, 0, 2]], np.float32))
    assert opened.tolist() == [[True, False, False, True]]
    assert structure.executed(opened).tolist() == [[True, True, False, False, True]]


def test_offset_is_added_to_every_margin() -> None:
    structure = Structure.of_config(small_config())
    margins = np.array([[0.5, -0.5, 0, 2]], np.float32)
    assert structure.opened(margins, -1).tolist() == [[False, False, False, True]]
    assert structure.opened(margins, 1e9).all()


def test_mac_share_leaves_out_skipped_blocks_and_counts_all_gates() -> None:
    structure, macs = Structure.of_config(small_config()), count_macs(small_config())
    executed = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
    skipped = macs.blocks["stage1_block2"].residual
    expected = [(macs.total - skipped) / macs.ungated, macs.total / macs.ungated]
    np.testing.assert_allclose(structure.mac_share(executed), expected)
    assert expected[1] > 1 > expected[0]


def test_network_without_gates_has_no_gated_block() -> None:
    structure = Structure.of_config(small_config().without_gates())
    assert structure.gated.tolist() == []
    assert structure.executed(np.ones((2, 0), bool)).tolist() == [[True] * 5] * 2
    assert structure.mac_share(np.ones((2, 5), bool)) == pytest.approx(1)
