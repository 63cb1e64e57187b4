from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="needs llvmlite")

from llvmlite.binding import llvm_version_info

from artifact.manifest import ArtifactError, Manifest
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.compiled import runtime as module
from service.engine.runtimes.compiled.runtime import CompiledRuntime
from service.engine.runtimes.machine_cache import MachineCache
from tests.networks import inputs
from tests.service.engine.runtimes.artifacts import (
    SHAPES,
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

KEPT = "compiled-fp32.bin"


def _open(folder: Path, manifest: Manifest, cache: MachineCache | None = None) -> CompiledRuntime:
    """Open an artifact, with nothing kept unless a cache is given."""
    return CompiledRuntime(folder, manifest, cache or MachineCache([], manifest))


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, wide: Exported) -> MachineCache:
    """What several tests may use, so that it is made once for all."""
    return MachineCache([tmp_path_factory.getbasetemp() / "made for the wide network"], wide.manifest)


@pytest.mark.parametrize(
    ("shape", "gate_threshold"), [*((shape, 0.0) for shape in SHAPES), ("all gated", 0.3), ("bottlenecks", -0.3)]
)
def test_runtime_does_what_the_portable_graph_does(
    tmp_path_factory: pytest.TempPathFactory, shape: str, gate_threshold: float
) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape, gate_threshold)
    assert_like_portable(_open(exported.folder, exported.manifest), exported)


def test_runtime_may_be_called_from_several_threads(wide: Exported, cache: MachineCache) -> None:
    assert_threads_get_their_own_answers(_open(wide.folder, wide.manifest, cache), wide)


def test_batch_is_its_images_one_after_the_other(wide: Exported, cache: MachineCache) -> None:
    assert_batches_are_their_images(_open(wide.folder, wide.manifest, cache), wide)


def test_margin_at_the_threshold_is_closed(tmp_path: Path) -> None:
    assert_margin_at_the_threshold_is_closed(_open, tmp_path)


def test_runtime_says_what_it_is(wide: Exported, cache: MachineCache) -> None:
    runtime = _open(wide.folder, wide.manifest, cache)
    llvm = ".".join(map(str, llvm_version_info))
    assert runtime.name == f"llvm {llvm}, llvmlite {version('llvmlite')}"
    assert (runtime.device, runtime.precision, runtime.runs_batches) == ("cpu", "fp32", False)
    assert runtime.candidates == ()
    assert runtime.manifest == wide.manifest


def test_what_is_made_is_made_once_and_kept(
    monkeypatch: pytest.MonkeyPatch, wide: Exported, cache: MachineCache
) -> None:
    first = _open(wide.folder, wide.manifest, cache)
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("it was made again"))
    second = _open(wide.folder, wide.manifest, cache)
    images, zeros = inputs(wide.network, 4), np.zeros(4, np.float32)
    assert_same(second.run(images, zeros), first.run(images, zeros))


def test_what_is_kept_and_damaged_is_made_again(wide: Exported, tmp_path: Path, cache: MachineCache) -> None:
    _open(wide.folder, wide.manifest, cache)
    whole = cache.read(KEPT)
    assert whole is not None
    cache = MachineCache([tmp_path], wide.manifest)
    cache.write(KEPT, whole)
    (kept,) = tmp_path.rglob(KEPT)
    kept.write_bytes(kept.read_bytes()[:-100])
    assert_like_portable(_open(wide.folder, wide.manifest, cache), wide)
    assert cache.read(KEPT) == whole


def test_changed_file_is_refused(wide: Exported, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        _open(with_one_bit_changed(wide, tmp_path), wide.manifest)


def test_changed_file_is_refused_even_where_what_was_made_of_it_was_kept(
    wide: Exported, tmp_path: Path, cache: MachineCache
) -> None:
    _open(wide.folder, wide.manifest, cache)
    with pytest.raises(ArtifactError, match="damaged"):
        _open(with_one_bit_changed(wide, tmp_path), wide.manifest, cache)


def test_file_that_is_no_model_is_refused_though_its_digest_is_right(wide: Exported, tmp_path: Path) -> None:
    manifest = with_no_model(wide, tmp_path)
    with pytest.raises(RuntimeUnavailable) as caught:
        _open(tmp_path, manifest)
    assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'} cannot be compiled: ")


def test_missing_onnx_package_is_told(wide: Exported) -> None:
    program = f"""
import sys
sys.modules["onnx"] = None
from pathlib import Path
from artifact.manifest import read_manifest
from service.engine.runtimes.compiled.runtime import CompiledRuntime
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.machine_cache import MachineCache
folder = Path({str(wide.folder)!r})
manifest = read_manifest(folder)
try:
    CompiledRuntime(folder, manifest, MachineCache([], manifest))
except RuntimeUnavailable as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert finished.stdout == "the compiled runtime needs onnx, which is not installed\n", finished.stderr
