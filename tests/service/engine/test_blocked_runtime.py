from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from artifact.manifest import ArtifactError, Manifest
from service.engine import blocked_runtime as module
from service.engine.blocked_runtime import BlockedRuntime
from service.engine.errors import RuntimeUnavailable
from service.engine.machine_cache import MachineCache
from tests.networks import inputs
from tests.service.engine.artifacts import (
    BLOCKABLE,
    OTHERS,
    Exported,
    assert_batches_are_their_images,
    assert_like_portable,
    assert_margin_at_the_threshold_is_closed,
    assert_same,
    assert_threads_get_their_own_answers,
    exported_shape,
    with_no_model,
    with_one_bit_changed,
)
from tests.service.engine.test_blocked_graph import needs_x86


def _open(folder: Path, manifest: Manifest) -> BlockedRuntime:
    return BlockedRuntime(folder, manifest, MachineCache([], manifest))


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")


@needs_x86
@pytest.mark.parametrize(
    ("shape", "gate_threshold"),
    [*((shape, 0.0) for shape in BLOCKABLE), ("all gated", 0.3), ("bottlenecks", -0.3)],
)
def test_runtime_does_what_the_portable_graph_does(
    tmp_path_factory: pytest.TempPathFactory, shape: str, gate_threshold: float
) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape, gate_threshold)
    assert_like_portable(_open(exported.folder, exported.manifest), exported)


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


@needs_x86
def test_runtime_may_be_called_from_several_threads(wide: Exported) -> None:
    assert_threads_get_their_own_answers(_open(wide.folder, wide.manifest), wide)


@needs_x86
def test_batch_is_its_images_one_after_the_other(wide: Exported) -> None:
    assert_batches_are_their_images(_open(wide.folder, wide.manifest), wide)


@needs_x86
def test_margin_at_the_threshold_is_closed(tmp_path: Path) -> None:
    assert_margin_at_the_threshold_is_closed(_open, tmp_path)


@needs_x86
def test_runtime_says_what_it_is(wide: Exported) -> None:
    runtime = _open(wide.folder, wide.manifest)
    assert runtime.name == f"onnxruntime {onnxruntime.__version__}, blocked layout"
    assert (runtime.device, runtime.precision, runtime.runs_batches) == ("cpu", "fp32", False)
    assert runtime.candidates == ()
    assert runtime.manifest == wide.manifest


@needs_x86
def test_graph_is_made_once_and_kept(monkeypatch: pytest.MonkeyPatch, wide: Exported, tmp_path: Path) -> None:
    cache = MachineCache([tmp_path], wide.manifest)
    first = BlockedRuntime(wide.folder, wide.manifest, cache)
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("it was made again"))
    second = BlockedRuntime(wide.folder, wide.manifest, cache)
    images, zeros = inputs(wide.network, 4), np.zeros(4, np.float32)
    assert_same(second.run(images, zeros), first.run(images, zeros))


@needs_x86
def test_damaged_graph_is_made_again(wide: Exported, tmp_path: Path) -> None:
    cache = MachineCache([tmp_path], wide.manifest)
    BlockedRuntime(wide.folder, wide.manifest, cache)
    whole = cache.read("blocked.onnx")
    assert whole is not None
    (kept,) = tmp_path.rglob("blocked.onnx")
    kept.write_bytes(kept.read_bytes()[:-100])
    assert_like_portable(BlockedRuntime(wide.folder, wide.manifest, cache), wide)
    assert cache.read("blocked.onnx") == whole


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


def test_changed_file_is_refused(wide: Exported, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        _open(with_one_bit_changed(wide, tmp_path), wide.manifest)


@needs_x86
def test_changed_file_is_refused_even_where_its_graph_was_kept(wide: Exported, tmp_path: Path) -> None:
    cache = MachineCache([tmp_path], wide.manifest)
    BlockedRuntime(wide.folder, wide.manifest, cache)
    with pytest.raises(ArtifactError, match="damaged"):
        BlockedRuntime(with_one_bit_changed(wide, tmp_path), wide.manifest, cache)


def test_file_that_is_no_model_is_refused_though_its_digest_is_right(wide: Exported, tmp_path: Path) -> None:
    manifest = with_no_model(wide, tmp_path)
    with pytest.raises(RuntimeUnavailable, match="no blocked graph can be made"):
        _open(tmp_path, manifest)


def test_missing_onnx_package_is_told(wide: Exported) -> None:
    program = f"""
import sys
sys.modules["onnx"] = None
from pathlib import Path
from artifact.manifest import read_manifest
from service.engine.blocked_runtime import BlockedRuntime
from service.engine.errors import RuntimeUnavailable
from service.engine.machine_cache import MachineCache
folder = Path({str(wide.folder)!r})
manifest = read_manifest(folder)
try:
    BlockedRuntime(folder, manifest, MachineCache([], manifest))
except RuntimeUnavailable as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert finished.stdout == "the blocked runtime needs onnx, which is not installed\n", finished.stderr
