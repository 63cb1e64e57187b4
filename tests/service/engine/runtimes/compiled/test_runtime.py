from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("llvmlite", reason="needs llvmlite")

from artifact.manifest import ONNX_NAME, Manifest, file_digest
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.compiled import runtime as module
from service.engine.runtimes.compiled.executable import Executable
from service.engine.runtimes.compiled.processor import VectorUnit
from service.engine.runtimes.compiled.runtime import CompiledRuntime
from service.engine.runtimes.machine_cache import MachineCache
from tests.networks import inputs, small_network
from tests.service.engine.runtimes.artifacts import (
    IMAGENET,
    Exported,
    assert_like_portable,
    assert_same,
    export,
    exported_shape,
)
from tests.service.engine.runtimes.compiled.trapping import trapping

OPEN, CLOSED, AS_IT_COMES = np.float32(1e4), np.float32(-1e4), np.float32(0)


def _open(exported: Exported) -> CompiledRuntime:
    return CompiledRuntime(exported.folder, exported.manifest, MachineCache([], exported.manifest))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "all gated")


@pytest.fixture(scope="module")
def kept(gated: Exported, tmp_path_factory: pytest.TempPathFactory) -> Executable:
    """What is kept of the network; it is made once for all tests here."""
    cache = MachineCache([tmp_path_factory.mktemp("kept")], gated.manifest)
    CompiledRuntime(gated.folder, gated.manifest, cache)
    content = cache.read("compiled-fp32.bin")
    assert content is not None
    return Executable.from_bytes(content)


@pytest.fixture
def cache(gated: Exported, kept: Executable, tmp_path: Path) -> MachineCache:
    """A cache that holds the network."""
    cache = MachineCache([tmp_path], gated.manifest)
    cache.write("compiled-fp32.bin", kept.to_bytes())
    return cache


@pytest.fixture
def runtime(gated: Exported, cache: MachineCache) -> CompiledRuntime:
    return CompiledRuntime(gated.folder, gated.manifest, cache)


def _alone(runtime: CompiledRuntime, image: Float32Array, offset: np.float32) -> tuple[Float32Array, Float32Array]:
    return runtime.run(image[None], np.full(1, offset, np.float32))


@pytest.mark.parametrize("width", [5, 18], ids=["odd", "twice an odd number"])
def test_channels_that_fill_no_vectors_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, width: int) -> None:
    monkeypatch.setattr(module, "host_vector_unit", lambda: VectorUnit(lanes=16, registers=32))
    network = small_network(stage_widths=(width, 16, 32))
    exported = Exported.opened(network, export(network, tmp_path / "exported"))
    with pytest.raises(RuntimeUnavailable, match=r"model\.onnx cannot be compiled: .* channels fill no vectors"):
        _open(exported)


@pytest.mark.parametrize("vectors", [VectorUnit(4, 32), VectorUnit(8, 16), VectorUnit(16, 32)], ids=str)
def test_vectors_of_any_processor_give_the_same_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, vectors: VectorUnit
) -> None:
    monkeypatch.setattr(module, "host_vector_unit", lambda: vectors)
    exported = exported_shape(tmp_path_factory.getbasetemp(), "imagenet stem, basic")
    assert_like_portable(_open(exported), exported)


def test_projection_of_a_single_pixel_leaves_its_input_to_the_residual(tmp_path: Path) -> None:
    # The last stage halves a single pixel: input and output of its projection are of one size.
    shape = IMAGENET | {"stage_blocks": (1,) * 5, "stage_widths": (16,) * 5, "target_rates": (0.5,) * 5}
    network = small_network(**shape)
    exported = Exported.opened(network, export(network, tmp_path / "exported"))
    assert_like_portable(_open(exported), exported)


def test_kept_program_is_run_without_anything_that_makes_it(
    monkeypatch: pytest.MonkeyPatch, gated: Exported, kept: Executable, tmp_path: Path
) -> None:
    images, zeros = inputs(gated.network, 6), np.zeros(6, np.float32)
    cache = MachineCache([tmp_path], gated.manifest)
    expected = CompiledRuntime(gated.folder, gated.manifest, cache).run(images, zeros)
    assert cache.read("compiled-fp32.bin") == kept.to_bytes()  # it is the same whenever it is made
    monkeypatch.setattr(module, "compiled_code", lambda *_: pytest.fail("code was made"))
    for name in ("onnx", "llvmlite.ir", "service.engine.runtimes.compiled.lowering"):
        monkeypatch.setitem(sys.modules, name, None)
    assert_same(CompiledRuntime(gated.folder, gated.manifest, cache).run(images, zeros), expected)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"no program", b"[1, 2]\n\x7fELF", b"1 2 3 4 5\nno digest\n", b"-1 -1 -1 -1 -1\n\n", b"\xff" * 999],
)
def test_kept_file_that_is_no_program_is_made_again(
    gated: Exported, kept: Executable, cache: MachineCache, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write("compiled-fp32.bin", content)
    CompiledRuntime(gated.folder, gated.manifest, cache)
    assert cache.read("compiled-fp32.bin") == kept.to_bytes()
    assert "no compiled network" in caplog.text


@pytest.mark.parametrize("labels", [3, 7])
def test_labels_of_another_network_are_refused(gated: Exported, cache: MachineCache, labels: int) -> None:
    manifest: Manifest = gated.manifest.model_copy(update={"labels": ("a label",) * labels})
    with pytest.raises(RuntimeUnavailable, match=f"6 classes for {labels} labels"):
        CompiledRuntime(gated.folder, manifest, cache)


def test_function_that_is_not_in_the_kept_code_is_told(
    monkeypatch: pytest.MonkeyPatch, gated: Exported, cache: MachineCache
) -> None:
    monkeypatch.setattr(module, "_ENTRY", "calculate")
    with pytest.raises(RuntimeUnavailable, match="has no calculate"):
        CompiledRuntime(gated.folder, gated.manifest, cache)


def test_answers_do_not_depend_on_what_ran_before(runtime: CompiledRuntime, gated: Exported) -> None:
    images = inputs(gated.network, 4)
    offsets = (OPEN, CLOSED, AS_IT_COMES)
    fresh = {}
    for row in range(4):
        for offset in offsets:
            runtime._scratches.clear()
            fresh[row, offset] = _alone(runtime, images[row], offset)
    for row in range(4):
        for before in offsets:
            for offset in offsets:
                _alone(runtime, images[(row + 1) % 4], before)
                assert_same(_alone(runtime, images[row], offset), fresh[row, offset])


def test_image_that_is_not_of_numbers_spoils_its_own_answer_only(runtime: CompiledRuntime, gated: Exported) -> None:
    images = inputs(gated.network, 2)
    expected = _alone(runtime, images[0], OPEN)
    images[1, :, 3, 3] = np.nan
    logits, margins = _alone(runtime, images[1], OPEN)
    assert np.isnan(logits).all()
    assert np.isnan(margins).all()
    assert_same(_alone(runtime, images[0], OPEN), expected)


def test_one_thread_needs_one_scratch_memory(runtime: CompiledRuntime, gated: Exported) -> None:
    images = inputs(gated.network, 3)
    runtime.run(images, np.zeros(3, np.float32))
    (scratch,) = runtime._scratches
    assert scratch.ctypes.data % 64 == 0
    runtime.run(images, np.zeros(3, np.float32))
    assert [id(each) for each in runtime._scratches] == [id(scratch)]


def test_thread_that_loses_the_race_for_scratch_memory_gets_its_own(runtime: CompiledRuntime, gated: Exported) -> None:
    class TakenInBetween(list[Float32Array]):
        def __bool__(self) -> bool:
            return True

        def __len__(self) -> int:
            return 1

    image = inputs(gated.network, 1)[0]
    expected = _alone(runtime, image, OPEN)
    runtime._scratches = TakenInBetween()
    assert_same(_alone(runtime, image, OPEN), expected)


def test_images_are_read_as_they_lie_in_memory(runtime: CompiledRuntime, gated: Exported) -> None:
    images, zeros = inputs(gated.network, 3), np.zeros(3, np.float32)
    expected = runtime.run(images, zeros)
    assert_same(runtime.run(np.asfortranarray(images), zeros), expected)
    assert_same(runtime.run(np.repeat(images, 2, axis=0)[::2], zeros), expected)
    logits, margins = runtime.run(images[:0], zeros[:0])
    assert (logits.shape, margins.shape) == ((0, 6), (0, 5))


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [((1, 3, 15, 16), 1), ((1, 3, 8, 8), 1), ((1, 1, 16, 16), 1), ((3, 16, 16), 3), ((2, 3, 16, 16), 1)],
)
def test_images_of_another_shape_are_refused_and_not_read_beyond(
    runtime: CompiledRuntime, shape: tuple[int, ...], offsets: int
) -> None:
    with pytest.raises(ValueError, match="images of shape"):
        runtime.run(np.zeros(shape, np.float32), np.zeros(offsets, np.float32))


def _with_spoilt_residual(exported: Exported, block: str, folder: Path) -> Manifest:
    """Make `folder` the artifact with weights that are no numbers in the residual of a block."""
    shutil.copytree(exported.folder, folder)
    model = onnx.load(str(folder / ONNX_NAME))
    for weight in model.graph.initializer:
        if weight.name.startswith(f"{block}.residual"):
            weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))
    onnx.save(model, str(folder / ONNX_NAME))
    files = exported.manifest.files | {ONNX_NAME: file_digest(folder / ONNX_NAME)}
    manifest: Manifest = exported.manifest.model_copy(update={"files": files})
    return manifest


@pytest.mark.parametrize("block", ["stage1_block2", "stage2_block1"], ids=["identity", "projection"])
def test_no_code_is_run_for_a_skipped_block(
    runtime: CompiledRuntime, gated: Exported, tmp_path: Path, block: str
) -> None:
    manifest = _with_spoilt_residual(gated, block, tmp_path / "spoilt")
    spoilt = CompiledRuntime(tmp_path / "spoilt", manifest, MachineCache([], manifest))
    image = inputs(gated.network, 1)[0]
    assert_same(_alone(spoilt, image, CLOSED), _alone(runtime, image, CLOSED))
    (scratch,) = spoilt._scratches
    assert np.isfinite(scratch).all()  # nor is anything computed and then thrown away
    assert np.isnan(_alone(spoilt, image, OPEN)[0]).all()


def test_missing_llvmlite_is_told(gated: Exported, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["llvmlite"] = None
from pathlib import Path
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.selection import open_runtime
try:
    open_runtime(Path({str(gated.folder)!r}), "compiled", "cpu", cache_folder=Path({str(tmp_path)!r}))
except RuntimeUnavailable as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert finished.stdout == "the compiled runtime needs llvmlite, which is not installed\n", finished.stderr


def test_kept_code_that_ends_the_process_is_made_again_by_the_next_one(
    gated: Exported, kept: Executable, cache: MachineCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write("compiled-fp32.bin", trapping(kept).to_bytes())
    program = f"""
from pathlib import Path
from artifact.manifest import read_manifest
from service.engine.runtimes.compiled.runtime import CompiledRuntime
from service.engine.runtimes.machine_cache import MachineCache
folder = Path({str(gated.folder)!r})
manifest = read_manifest(folder)
CompiledRuntime(folder, manifest, MachineCache([Path({str(tmp_path)!r})], manifest))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGILL, ended.stderr
    assert_like_portable(CompiledRuntime(gated.folder, gated.manifest, cache), gated)
    assert caplog.messages == ["the kept compiled-fp32.bin has ended the process that ran it; it will be made again"]
    assert cache.read("compiled-fp32.bin") == kept.to_bytes()
    CompiledRuntime(gated.folder, gated.manifest, cache)
    assert len(caplog.messages) == 1
