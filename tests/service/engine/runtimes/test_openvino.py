from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="needs OpenVINO")

import openvino

from artifact.agreement import Agreement
from artifact.manifest import ArtifactError, Manifest
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import openvino as module
from service.engine.runtimes.openvino import OpenVinoRuntime
from service.engine.runtimes.openvino_graph import core
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

needs_bf16 = pytest.mark.skipif(
    "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor has no bf16 arithmetic",
)


def _open(folder: Path, manifest: Manifest) -> OpenVinoRuntime:
    return OpenVinoRuntime(folder, manifest, "fp32")


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoRuntime:
    exported = exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")
    return _open(exported.folder, exported.manifest)


@pytest.mark.parametrize("shape", SHAPES)
def test_runtime_does_what_the_portable_graph_does(tmp_path_factory: pytest.TempPathFactory, shape: str) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape)
    assert_like_portable(_open(exported.folder, exported.manifest), exported)


def test_runtime_keeps_the_models_threshold(tmp_path_factory: pytest.TempPathFactory) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), "all gated", 0.3)
    assert_like_portable(_open(exported.folder, exported.manifest), exported)


def test_margin_at_the_threshold_is_closed(tmp_path: Path) -> None:
    assert_margin_at_the_threshold_is_closed(_open, tmp_path)


def test_runtime_may_be_called_from_several_threads(opened: OpenVinoRuntime, wide: Exported) -> None:
    assert_threads_get_their_own_answers(opened, wide)


def test_batch_is_its_images_one_after_the_other(opened: OpenVinoRuntime, wide: Exported) -> None:
    assert_batches_are_their_images(opened, wide)


def test_answers_are_the_callers_own(opened: OpenVinoRuntime, wide: Exported) -> None:
    # The requests' buffers are used again for the next image.
    images, zero = inputs(wide.network, 2), np.zeros(1, np.float32)
    first = opened.run(images[:1], zero)
    kept = [output.copy() for output in first]
    opened.run(images[1:], zero)
    assert_same(first, (kept[0], kept[1]))


def test_one_thread_needs_one_set_of_requests(opened: OpenVinoRuntime, wide: Exported) -> None:
    image, zero = inputs(wide.network, 1), np.zeros(1, np.float32)
    opened.run(image, zero)
    idle = list(opened._idle)
    opened.run(image, zero)
    assert opened._idle == idle


def test_failed_run_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, wide: Exported) -> None:
    runtime = _open(wide.folder, wide.manifest)
    images, zeros = inputs(wide.network, 2), np.zeros(2, np.float32)
    expected = runtime.run(images, zeros)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_infer", _fails)
        with pytest.raises(RuntimeError, match="the library fails"):
            runtime.run(images, zeros)
    assert_same(runtime.run(images, zeros), expected)


def _fails(request: openvino.InferRequest) -> None:  # noqa: ARG001
    raise RuntimeError("the library fails")


@pytest.mark.parametrize("shape", ["first without a gate", "all gated", "imagenet stem, bottlenecks", "plain"])
def test_closed_gate_saves_its_blocks_convolutions(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, shape: str
) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape)
    runtime = _open(exported.folder, exported.manifest)
    counts: list[int] = []
    infer = module._infer

    def counting(request: openvino.InferRequest) -> None:
        layers = request.get_compiled_model().get_runtime_model().get_ops()
        counts.append(sum(layer.get_rt_info()["layerType"].value == "Convolution" for layer in layers))
        infer(request)

    monkeypatch.setattr(module, "_infer", counting)
    image = inputs(exported.network, 1)
    each = 3 if exported.network.config.block == "bottleneck" else 2
    for offset in (1e4, 0.0, -1e4):
        counts.clear()
        offsets = np.full(1, offset, np.float32)
        _, margins = runtime.run(image, offsets)
        executed = exported.manifest.executed(margins, offsets)[0]
        projections = sum(block.shortcut_macs > 0 for block in exported.manifest.blocks)
        assert sum(counts) == 1 + projections + each * int(executed.sum())
        if offset:
            assert all(executed[exported.manifest.gated_indices] == (offset > 0))


def test_runtime_says_what_it_is(opened: OpenVinoRuntime, wide: Exported) -> None:
    assert opened.name == f"openvino {openvino.__version__.split('-')[0]}"
    assert (opened.device, opened.precision, opened.runs_batches) == ("cpu", "fp32", False)
    assert opened.candidates == ()
    assert opened.manifest == wide.manifest


@needs_bf16
@pytest.mark.parametrize("shape", ["first without a gate", "imagenet stem, bottlenecks", "widths 4, 8, 16"])
def test_bf16_is_near_fp32(tmp_path_factory: pytest.TempPathFactory, shape: str) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape)
    runtime = OpenVinoRuntime(exported.folder, exported.manifest, "bf16")
    assert runtime.precision == "bf16"
    images, agreement = inputs(exported.network, 12), Agreement()
    for offset in (0.0, 1e4, -1e4):
        offsets = np.full(12, offset, np.float32)
        actual = runtime.run(images, offsets)
        assert actual[0].dtype == actual[1].dtype == np.float32
        agreement.compare("bf16", exported.portable.run(images, offsets), actual, offsets, exported.manifest.gating)
    assert agreement.equal_gates > 0.95
    # Eight bits of precision are not 24, and not four.
    assert 1e-4 < agreement.logit_difference < 0.1
    assert 1e-4 < agreement.margin_difference < 0.1


def test_bf16_is_refused_on_a_processor_without_it(monkeypatch: pytest.MonkeyPatch, wide: Exported) -> None:
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(RuntimeUnavailable, match="no bf16 arithmetic"):
        OpenVinoRuntime(wide.folder, wide.manifest, "bf16")
    assert OpenVinoRuntime(wide.folder, wide.manifest, "fp32").precision == "fp32"


def test_network_openvino_cannot_compile_is_refused(monkeypatch: pytest.MonkeyPatch, wide: Exported) -> None:
    def refuses(*_: object) -> None:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(openvino.Core, "compile_model", refuses)
    with pytest.raises(RuntimeUnavailable, match=r"OpenVINO cannot open .*: no such layer"):
        _open(wide.folder, wide.manifest)


def test_changed_file_is_refused(wide: Exported, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        _open(with_one_bit_changed(wide, tmp_path), wide.manifest)


def test_file_that_is_no_model_is_refused_though_its_digest_is_right(wide: Exported, tmp_path: Path) -> None:
    manifest = with_no_model(wide, tmp_path)
    with pytest.raises(RuntimeUnavailable, match="OpenVINO cannot open"):
        _open(tmp_path, manifest)


@pytest.mark.parametrize("library", ["openvino", "onnx"])
def test_library_that_is_not_installed_is_told(wide: Exported, tmp_path: Path, library: str) -> None:
    program = f"""
import sys
sys.modules[{library!r}] = None
from pathlib import Path
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.selection import open_runtime
try:
    open_runtime(Path({str(wide.folder)!r}), "openvino", "cpu", cache_folder=Path({str(tmp_path)!r}))
except RuntimeUnavailable as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert finished.stdout == f"the openvino runtime needs {library}, which is not installed\n", finished.stderr


def test_process_that_has_closed_models_in_any_order_can_be_signalled(wide: Exported) -> None:
    program = f"""
import signal
from pathlib import Path
from artifact.manifest import read_manifest
from service.engine.runtimes.openvino import OpenVinoRuntime
folder = Path({str(wide.folder)!r})
opened = [OpenVinoRuntime(folder, read_manifest(folder), "fp32") for _ in range(3)]
while opened:
    del opened[0]
signal.signal(signal.SIGTERM, lambda *_: print("heeded"))
signal.raise_signal(signal.SIGTERM)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stdout) == (0, "heeded\n"), finished.stderr
