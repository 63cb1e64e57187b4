from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from artifact.manifest import ONNX_NAME, PROBES_NAME, file_digest, read_manifest, write_manifest
from artifact.probes import read_probes, write_probes
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import onnx as onnx_runtime
from service.engine.runtimes import selection
from service.engine.runtimes.base import Candidate, RuntimeName
from service.engine.runtimes.selection import open_runtime
from tests.networks import small_network
from tests.service.engine.runtimes.artifacts import ALL_GATED, Exported, export
from tests.service.engine.runtimes.lab import (
    COMPILED,
    CUDA,
    ONNX,
    OPENVINO_BF16,
    TORCHSCRIPT,
    Change,
    Lab,
    chosen,
    gates_off,
    logits_off,
    nan,
    off_in_mixed_batches,
    off_when_forced,
    raises,
    raises_when_forced,
    too_few_margins,
    tried,
)

FORCED = [off_when_forced(1), off_when_forced(-1), off_in_mixed_batches, raises_when_forced]


def _write(folder: Path, name: str) -> None:
    """Have the manifest tell the digest that a file has now."""
    manifest = read_manifest(folder)
    files = manifest.files | {name: file_digest(folder / name)}
    write_manifest(folder, manifest.model_copy(update={"files": files}))


def _without_forced_answers(folder: Path) -> None:
    """Make it an artifact of an earlier export."""
    write_probes(folder, replace(read_probes(folder, read_manifest(folder)), forced=None))
    _write(folder, PROBES_NAME)


@pytest.fixture
def earlier(exported: Exported, tmp_path: Path) -> Path:
    """The artifact as an earlier export wrote it."""
    copy = shutil.copytree(exported.folder, tmp_path / "earlier")
    _without_forced_answers(copy)
    return copy


@pytest.mark.parametrize("candidate", [ONNX, COMPILED, TORCHSCRIPT])
@pytest.mark.parametrize("change", [logits_off, gates_off, nan, too_few_margins, raises, *FORCED])
def test_runtime_asked_for_that_is_not_right_is_refused(lab: Lab, candidate: Candidate, change: Change) -> None:
    lab.offer(candidate, 1, change)
    with pytest.raises(RuntimeUnavailable, match=f"{candidate.runtime} 1 in fp32 is not right for this model here: "):
        lab.choose(runtime=candidate.runtime)


@pytest.mark.parametrize("change", [gates_off, raises_when_forced, off_when_forced(1)])
def test_gpu_that_is_not_right_is_refused_where_it_was_asked_for(lab: Lab, change: Change) -> None:
    for runtime in ("auto", "onnx"):
        assert lab.choose(runtime=runtime, device="cuda").device == "cuda"
    lab.offer(ONNX, 1, change)
    assert chosen(lab.choose(runtime="auto", device="cuda")) == ("torchscript", "fp32")
    lab.offer(TORCHSCRIPT, 1, change)
    for runtime in ("auto", "onnx"):
        with pytest.raises(RuntimeUnavailable, match="onnx 1 in fp32 is not right for this model here: "):
            lab.choose(runtime=runtime, device="cuda")


def test_gpu_that_is_not_right_leaves_the_fastest_on_the_cpu_and_that_is_told(
    lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "made_for_gpus", lambda: True)
    assert lab.choose(device="auto").device == "cuda"
    assert lab.opened == [CUDA, ONNX]
    lab.offer(ONNX, 1, off_when_forced(-1))
    lab.withdraw(TORCHSCRIPT, RuntimeUnavailable("it is not installed"))
    runtime = lab.choose(device="auto")
    assert (runtime.device, chosen(runtime)) == ("cpu", ("compiled", "fp32"))
    assert "the CPU serves instead of a GPU: cuda: not in this lab; onnx: onnx 1 in fp32 is not" in caplog.text


def test_low_precision_with_forced_gates_need_only_predict_nearly_alike(lab: Lab) -> None:
    lab.offer(OPENVINO_BF16, 1, lambda logits, margins, _: (logits + np.float32(0.01), margins))
    assert chosen(lab.choose("bf16", "openvino")) == ("openvino", "bf16")
    lab.offer(OPENVINO_BF16, 1, lambda logits, margins, offsets: (logits * np.sign(0.5 - offsets)[:, None], margins))
    with pytest.raises(RuntimeUnavailable, match="of the predictions"):
        lab.choose("bf16", "openvino")


@pytest.mark.parametrize("runtime", ["onnx", "torchscript", "compiled", "openvino"])
def test_answers_with_forced_gates_that_are_not_the_networks_let_nothing_serve(
    artifact: Path, tmp_path: Path, runtime: RuntimeName
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    assert open_runtime(copy, runtime, "cpu").manifest.name == "small"
    probes = read_probes(copy, read_manifest(copy))
    assert probes.forced is not None
    write_probes(copy, replace(probes, forced=(probes.forced[0][:, ::-1], probes.forced[1])))
    _write(copy, PROBES_NAME)
    with pytest.raises(RuntimeUnavailable, match="is not right for this model here: forced gates: a logit differs"):
        open_runtime(copy, runtime, "cpu")


@pytest.mark.parametrize("runtime", ["onnx", "compiled", "openvino"])
def test_branch_that_no_probe_takes_is_seen_to_be_wrong(tmp_path: Path, runtime: RuntimeName) -> None:
    folder = export(small_network(**ALL_GATED), tmp_path / "closed", gate_threshold=1000.0)
    assert read_probes(folder, read_manifest(folder)).margins.max() < 1000
    model = onnx.load(folder / ONNX_NAME)
    weight = next(each for each in model.graph.initializer if each.name == "stage1_block1.residual.0.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(2), weight.name))
    onnx.save(model, folder / ONNX_NAME)
    _write(folder, ONNX_NAME)
    with pytest.raises(RuntimeUnavailable, match="forced gates: a "):
        open_runtime(folder, runtime, "cpu")


@pytest.mark.parametrize("runtime", ["onnx", "compiled", "openvino"])
def test_earlier_artifact_opens(earlier: Path, runtime: RuntimeName) -> None:
    assert open_runtime(earlier, runtime, "cpu").manifest.name == "small"


@pytest.mark.parametrize("change", FORCED)
def test_forced_gates_of_an_earlier_artifact_are_compared_with_the_portable_graph(
    lab: Lab, earlier: Path, change: Change
) -> None:
    lab.offer(COMPILED, 1, change)
    with pytest.raises(RuntimeUnavailable, match=r"compiled 1 in fp32 is not right .* forced gates"):
        lab.choose(runtime="compiled", folder=earlier)
    assert lab.opened == [COMPILED, ONNX]
    runtime = lab.choose(folder=earlier)
    assert "forced gates" in str(tried(runtime)["compiled", "fp32"].problem)


def test_earlier_artifact_whose_portable_graph_fails_with_forced_gates_is_refused(lab: Lab, earlier: Path) -> None:
    lab.offer(ONNX, 1, raises_when_forced)
    with pytest.raises(RuntimeUnavailable, match="with forced gates it fails: out of its depth"):
        lab.choose(runtime="compiled", folder=earlier)


def test_earlier_artifact_is_served_without_the_portable_graph_and_that_is_told(
    lab: Lab, earlier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab.withdraw(ONNX, RuntimeUnavailable("no such library"))
    lab.offer(COMPILED, 1, off_when_forced(1))
    assert chosen(lab.choose(runtime="compiled", folder=earlier)) == ("compiled", "fp32")
    told = "small was exported without answers for forced gates, so these are not compared: no such library"
    assert told in caplog.text


def test_portable_graph_is_not_opened_to_prove_another(lab: Lab) -> None:
    for candidate in (COMPILED, TORCHSCRIPT):
        lab.choose(runtime=candidate.runtime)
        assert lab.opened == [candidate]


def test_fp32_on_a_gpu_is_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "cuda_present", lambda: True)
    monkeypatch.setattr(onnx_runtime.onnxruntime, "preload_dlls", lambda: None)
    name, options = onnx_runtime._providers("cuda")[0]
    assert (name, options["use_tf32"]) == ("CUDAExecutionProvider", "0")
