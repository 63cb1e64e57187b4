from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from artifact.manifest import (
    MANIFEST_NAME,
    ONNX_NAME,
    TORCHSCRIPT_NAME,
    ArtifactError,
    file_digest,
    read_manifest,
    write_manifest,
)
from artifact.preprocessing import Float32Array
from service.engine.errors import DeviceLost, RuntimeUnavailable
from service.engine.runtimes import onnx as onnx_runtime
from service.engine.runtimes import selection
from service.engine.runtimes.base import Device, Runtime, RuntimeName
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.selection import open_runtime
from service.engine.runtimes.torchscript import TorchScriptRuntime
from tests.networks import inputs, small_network

ONNX_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
TORCH_CUDA = torch.cuda.is_available()
RUNTIMES: tuple[RuntimeName, ...] = ("onnx", "torchscript")
FILES = {"onnx": ONNX_NAME, "torchscript": TORCHSCRIPT_NAME}


@pytest.fixture(scope="module", params=RUNTIMES)
def opened(request: pytest.FixtureRequest, artifact: Path) -> Runtime:
    return open_runtime(artifact, request.param, "cpu")


@pytest.fixture(scope="module")
def images() -> Float32Array:
    return inputs(small_network(), 12)


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact to tamper with."""
    return shutil.copytree(artifact, tmp_path / "copy")


def _assert_same(one: tuple[Float32Array, ...], other: tuple[Float32Array, ...], tolerance: float = 1e-4) -> None:
    for left, right in zip(one, other, strict=True):
        assert left.dtype == right.dtype == np.float32
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


def test_runtime_does_what_the_network_does(opened: Runtime, images: Float32Array) -> None:
    offsets = np.linspace(-1, 1, 12, dtype=np.float32)
    with torch.inference_mode():
        output = small_network()(torch.from_numpy(images), torch.from_numpy(offsets))
    logits, margins = opened.run(images, offsets)
    _assert_same((logits, margins), (output.logits.numpy(), output.margins.numpy()))
    executed = opened.manifest.executed(margins, offsets)
    assert np.array_equal(executed[:, 1:], output.open.numpy() > 0)
    assert len(np.unique(executed, axis=0)) > 3


def test_runtime_may_be_called_from_several_threads(opened: Runtime, images: Float32Array) -> None:
    zeros = np.zeros(12, np.float32)
    expected = opened.run(images, zeros)

    def run(turn: int) -> None:
        row = turn % 12
        alone = opened.run(images[row : row + 1], zeros[:1])
        _assert_same(alone, (expected[0][row : row + 1], expected[1][row : row + 1]))

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(run, range(100)))) == 100


def test_runtime_says_what_it_is(artifact: Path) -> None:
    onnx, torchscript = (open_runtime(artifact, name, "cpu") for name in RUNTIMES)
    assert isinstance(onnx, OnnxRuntime)
    assert isinstance(torchscript, TorchScriptRuntime)
    assert (onnx.name, onnx.device) == (f"onnxruntime {onnxruntime.__version__}", "cpu")
    assert (torchscript.name, torchscript.device) == (f"torch {torch.__version__}", "cpu")
    assert onnx.manifest == torchscript.manifest == read_manifest(artifact)


@pytest.mark.parametrize("name", RUNTIMES)
def test_changed_file_is_refused(copy: Path, name: RuntimeName) -> None:
    path = copy / FILES[name]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        open_runtime(copy, name, "cpu")


@pytest.mark.parametrize("name", RUNTIMES)
def test_missing_file_is_refused(copy: Path, name: RuntimeName) -> None:
    (copy / FILES[name]).unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        open_runtime(copy, name, "cpu")


@pytest.mark.parametrize("name", RUNTIMES)
def test_artifact_without_a_file_for_the_runtime_is_refused(copy: Path, name: RuntimeName) -> None:
    manifest = read_manifest(copy)
    left = {file: digest for file, digest in manifest.files.items() if file != FILES[name]}
    write_manifest(copy, manifest.model_copy(update={"files": left}))
    with pytest.raises(ArtifactError, match=f"has no {FILES[name]}"):
        open_runtime(copy, name, "cpu")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', "\x00"])
def test_manifest_that_is_none_is_refused(copy: Path, content: str) -> None:
    (copy / MANIFEST_NAME).write_text(content)
    with pytest.raises(ArtifactError, match="not a valid manifest"):
        open_runtime(copy)


def test_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no artifact in"):
        open_runtime(tmp_path / "nowhere")


@pytest.mark.parametrize("name", RUNTIMES)
def test_file_that_is_no_model_is_refused_though_its_digest_is_right(copy: Path, name: RuntimeName) -> None:
    path = copy / FILES[name]
    path.write_bytes(b"no model")
    manifest = read_manifest(copy)
    write_manifest(copy, manifest.model_copy(update={"files": manifest.files | {FILES[name]: file_digest(path)}}))
    with pytest.raises(RuntimeUnavailable, match="cannot open"):
        open_runtime(copy, name, "cpu")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("onnx", marks=pytest.mark.skipif(ONNX_CUDA, reason="this ONNX Runtime has CUDA")),
        pytest.param("torchscript", marks=pytest.mark.skipif(TORCH_CUDA, reason="this PyTorch has CUDA")),
    ],
)
def test_cuda_that_is_not_there_is_refused_and_auto_does_without(artifact: Path, name: RuntimeName) -> None:
    with pytest.raises(RuntimeUnavailable, match="CUDA"):
        open_runtime(artifact, name, "cuda")
    assert open_runtime(artifact, name, "auto").device == "cpu"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("onnx", marks=pytest.mark.skipif(not ONNX_CUDA, reason="this ONNX Runtime has no CUDA")),
        pytest.param("torchscript", marks=pytest.mark.skipif(not TORCH_CUDA, reason="this PyTorch has no CUDA")),
    ],
)
def test_auto_takes_cuda_where_it_works_and_agrees_with_the_cpu(
    artifact: Path, images: Float32Array, name: RuntimeName
) -> None:
    on_gpu, on_cpu = open_runtime(artifact, name, "auto"), open_runtime(artifact, name, "cpu")
    assert (on_gpu.device, on_cpu.device) == ("cuda", "cpu")
    for offset in (0.0, 1e4, -1e4):
        offsets = np.full(len(images), offset, np.float32)
        expected = on_cpu.run(images, offsets)
        assert np.abs(expected[1] + offset).min() > 0.05  # or rounding might choose another path
        _assert_same(on_gpu.run(images, offsets), expected, tolerance=1e-3)


@pytest.mark.parametrize("name", ["compiled", "openvino", "int8"])
def test_runtime_for_cpus_is_refused_on_cuda(artifact: Path, name: RuntimeName) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"the {name} runtime is for CPUs"):
        open_runtime(artifact, name, "cuda")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_cuda_that_is_built_in_but_does_not_work_leaves_the_fastest_on_the_cpu(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    monkeypatch.setattr(selection, "made_for_gpus", lambda: True)
    monkeypatch.setattr(onnx_runtime, "cuda_present", lambda: True)
    monkeypatch.setattr(onnx_runtime, "_providers", lambda _: ["CPUExecutionProvider"])
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    chosen = open_runtime(artifact, "auto", device, cache_folder=tmp_path)
    assert chosen.device == "cpu"
    assert len(chosen.candidates) > 1
    assert open_runtime(artifact, "onnx", "auto").candidates == ()  # asked for by name, it is not compared


def test_cuda_that_works_is_taken_without_comparing(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "made_for_gpus", lambda: True)
    monkeypatch.setattr(onnx_runtime, "cuda_present", lambda: True)
    monkeypatch.setattr(onnx_runtime, "_providers", lambda _: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnx_runtime, "_CUDA", "CPUExecutionProvider")  # as if it had come up
    monkeypatch.setattr(onnx_runtime, "_MEMORY", "cpu")
    monkeypatch.setattr(selection, "_candidates", lambda _: pytest.fail("runtimes of the CPU were compared"))
    assert open_runtime(artifact, "auto", "auto").device == "cuda"


def test_run_that_fails_on_a_gpu_is_told_and_not_done_by_the_cpu(
    artifact: Path, images: Float32Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_runtime, "_CUDA", "CPUExecutionProvider")  # as if it had come up
    runtime = onnx_runtime.OnnxRuntime(artifact, read_manifest(artifact), "cpu")
    assert runtime.device == "cuda"
    monkeypatch.setattr(onnx_runtime, "_MEMORY", "a device that is none")
    with pytest.raises(DeviceLost):
        runtime.run(images[:1], np.zeros(1, np.float32))


@pytest.mark.parametrize(("name", "library"), [("onnx", "onnxruntime"), ("torchscript", "torch")])
def test_library_that_is_not_installed_is_told(artifact: Path, name: str, library: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
from pathlib import Path
from service.engine.errors import DeviceLost, RuntimeUnavailable
from service.engine.runtimes.selection import open_runtime
try:
    open_runtime(Path({str(artifact)!r}), {name!r})
except RuntimeUnavailable as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "not installed" in finished.stdout, finished.stderr
