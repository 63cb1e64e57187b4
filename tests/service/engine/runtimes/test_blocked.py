from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from artifact.manifest import Manifest
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import blocked as module
from service.engine.runtimes.blocked import BlockedRuntime
from service.engine.runtimes.machine_cache import MachineCache
from tests.service.engine.runtimes.artifacts import OTHERS, Exported, assert_like_portable, exported_shape
from tests.service.engine.runtimes.test_blocked_graph import needs_x86


def _open(folder: Path, manifest: Manifest) -> BlockedRuntime:
    return BlockedRuntime(folder, manifest, MachineCache([], manifest))


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")


@pytest.mark.parametrize("shape", OTHERS)
def test_network_that_fits_no_blocked_layout_is_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shape: str
) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape)
    # Which of the two depends on the processor: what must not happen is another exception, or another answer.
    with suppress(RuntimeUnavailable):
        assert_like_portable(_open(exported.folder, exported.manifest), exported)


@needs_x86
def test_channels_that_fill_no_block_are_left_out_of_the_gates(tmp_path_factory: pytest.TempPathFactory) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), "widths 16, 24, 32")
    assert_like_portable(_open(exported.folder, exported.manifest), exported)


def test_graph_that_cannot_be_opened_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, wide: Exported, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_build", lambda *_: b"no model")
    cache = MachineCache([tmp_path], wide.manifest)
    with pytest.raises(RuntimeUnavailable, match="made for this machine"):
        BlockedRuntime(wide.folder, wide.manifest, cache)
    assert cache.read("blocked.onnx") is None


def test_network_without_gates_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = exported_shape(tmp_path_factory.getbasetemp(), "wide and plain")
    with pytest.raises(RuntimeUnavailable, match=r"no blocked graph can be made of .*: without gates"):
        _open(plain.folder, plain.manifest)
