from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ONNX_NAME, PROBES_NAME, ArtifactError, Manifest, file_digest, write_manifest
from artifact.preprocessing import Float32Array
from artifact.probes import read_probes, write_probes
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import selection
from service.engine.runtimes.base import Candidate, RuntimeName
from service.engine.runtimes.selection import open_runtime
from tests.service.engine.runtimes.artifacts import Exported, assert_like_portable, exported_shape
from tests.service.engine.runtimes.lab import (
    COMPILED,
    COMPILED_BF16,
    FP32,
    ONNX,
    OPENVINO,
    OPENVINO_BF16,
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


@pytest.mark.parametrize("fastest", FP32)
def test_fastest_is_chosen(lab: Lab, fastest: Candidate) -> None:
    lab.offer(fastest, milliseconds=9)
    runtime = lab.choose()
    assert chosen(runtime) == (fastest.runtime, "fp32")
    candidates = tried(runtime)
    for candidate in FP32:
        expected = 9 if candidate == fastest else 10
        assert candidates[candidate.runtime, "fp32"].image_ms == pytest.approx(expected)
        assert candidates[candidate.runtime, "fp32"].problem is None


def test_time_of_an_image_is_the_median_of_warm_runs(lab: Lab) -> None:
    def slow_at_first(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
        # Every first run of two after another candidate's is slow.
        calls[0] += 1
        lab.clock.now += 0.5 if calls[0] % 2 else 0.0
        return logits, margins

    calls = [0]
    lab.offer(COMPILED, 4, slow_at_first)
    probes = len(read_probes(lab.exported.folder, lab.exported.manifest))
    assert (probes + 3) % 2 == 1  # so that the second runs, which count, are the quick ones
    calls[0] = 1
    assert tried(lab.choose())["compiled", "fp32"].image_ms == pytest.approx(4)


def test_bf16_is_tried_only_where_it_is_allowed(lab: Lab) -> None:
    lab.offer(OPENVINO_BF16, milliseconds=1)
    assert chosen(lab.choose("fp32"))[1] == "fp32"
    assert OPENVINO_BF16 not in lab.opened
    assert chosen(lab.choose("bf16")) == ("openvino", "bf16")
    # Each precision has a memory of its own.
    assert chosen(lab.choose("fp32"))[1] == "fp32"
    assert chosen(lab.choose("bf16")) == ("openvino", "bf16")


def test_bf16_that_is_slower_is_not_taken(lab: Lab) -> None:
    lab.offer(OPENVINO_BF16, milliseconds=20)
    lab.offer(COMPILED, milliseconds=5)
    runtime = lab.choose("bf16")
    assert chosen(runtime) == ("compiled", "fp32")
    assert tried(runtime)["openvino", "bf16"].image_ms == pytest.approx(20)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (logits_off, "a logit differs"),
        (gates_off, "gates decide differently"),
        (nan, "a logit differs by nan"),
        (too_few_margins, "shapes"),
        (raises, "it fails: out of its depth"),
        (off_when_forced(1), "forced gates: a logit differs"),
        (off_when_forced(-1), "forced gates: a logit differs"),
        (off_in_mixed_batches, "forced gates: a logit differs"),
        (raises_when_forced, "with forced gates it fails: out of its depth"),
    ],
)
def test_runtime_that_is_not_right_is_left_out_and_its_problem_told(
    lab: Lab, caplog: pytest.LogCaptureFixture, change: Change, problem: str
) -> None:
    lab.offer(COMPILED, 1, change)
    lab.offer(OPENVINO, 5)
    runtime = lab.choose()
    assert chosen(runtime) == ("openvino", "fp32")
    left_out = tried(runtime)["compiled", "fp32"]
    assert left_out.image_ms is None
    assert left_out.problem is not None
    assert problem in left_out.problem
    assert "compiled 1 in fp32 is left out" in caplog.text
    assert tried(lab.choose())["compiled", "fp32"] == left_out  # it is remembered, too


@pytest.mark.parametrize("error", [RuntimeUnavailable("no such library"), KeyError("no such library")])
def test_runtime_that_does_not_open_is_left_out_and_its_problem_told(lab: Lab, error: Exception) -> None:
    lab.withdraw(COMPILED, error)
    problem = tried(lab.choose())["compiled", "fp32"].problem
    assert problem is not None
    assert "no such library" in problem


def test_bf16_may_be_less_exact_than_fp32_but_not_by_much(lab: Lab) -> None:
    def rounded(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
        return logits + np.float32(0.01), margins + np.float32(0.002) * np.sign(margins)

    lab.offer(OPENVINO_BF16, 1, rounded)
    lab.offer(OPENVINO, 1, rounded)
    runtime = lab.choose("bf16")
    assert chosen(runtime) == ("openvino", "bf16")
    assert tried(runtime)["openvino", "fp32"].problem is not None


def _nan_margins_of_closed_gates(
    logits: Float32Array, margins: Float32Array, offsets: Float32Array
) -> LogitsAndMargins:
    return logits, np.where(margins + offsets[:, None] > 0, margins, np.float32(np.nan))


def _nan_below_the_best(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    """A NaN where argmax, which takes the first NaN for the highest, hides it."""
    spoilt = logits.copy()
    spoilt[np.arange(len(logits)), logits.argmax(axis=1)] = np.nan
    return spoilt, margins


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (gates_off, "of the gates"),
        (lambda logits, margins, _: (np.roll(logits, 1, axis=1), margins), "0.0% of the predictions"),
        (_nan_below_the_best, "not numbers"),
        (_nan_margins_of_closed_gates, "not numbers"),
        (too_few_margins, "shapes"),
        (raises, "it fails"),
    ],
)
def test_bf16_that_is_too_far_off_is_left_out(lab: Lab, change: Change, problem: str) -> None:
    lab.offer(OPENVINO_BF16, 1, change)
    runtime = lab.choose("bf16")
    assert chosen(runtime)[1] == "fp32"
    told = tried(runtime)["openvino", "bf16"].problem
    assert told is not None
    assert problem in told


def test_where_nothing_is_right_nothing_is_served(lab: Lab) -> None:
    for candidate in FP32:
        lab.offer(candidate, 1, logits_off)
    with pytest.raises(RuntimeUnavailable, match=r"no runtime gives this model's answers here: .*a logit differs"):
        lab.choose()
    assert list(lab.cache_folder.rglob("selection-*")) == []


@pytest.mark.parametrize("candidate", [COMPILED, OPENVINO, OPENVINO_BF16])
def test_runtime_asked_for_is_opened_and_not_compared_with_others(lab: Lab, candidate: Candidate) -> None:
    runtime = lab.choose(candidate.precision, candidate.runtime)
    assert chosen(runtime) == (candidate.runtime, candidate.precision)
    assert lab.opened == [candidate]
    assert runtime.candidates == ()
    assert not lab.cache_folder.exists()


def test_runtime_asked_for_that_is_not_there_is_told(lab: Lab) -> None:
    lab.withdraw(OPENVINO, RuntimeUnavailable("no such library"))
    with pytest.raises(RuntimeUnavailable, match="no such library"):
        lab.choose(runtime="openvino")


@pytest.mark.parametrize("runtime", ["auto", "onnx", "torchscript", "compiled", "openvino"])
@pytest.mark.parametrize("how", ["missing", "damaged", "of another model", "unlisted"])
def test_artifact_without_its_probes_is_refused(
    exported: Exported, tmp_path: Path, runtime: RuntimeName, how: str
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    path, manifest = copy / PROBES_NAME, exported.manifest
    if how == "missing":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "unlisted":
        files = {name: digest for name, digest in manifest.files.items() if name != PROBES_NAME}
        write_manifest(copy, manifest.model_copy(update={"files": files}))
    else:
        probes = read_probes(copy, manifest)
        write_probes(copy, replace(probes, margins=probes.margins[:, :-1]))
        files = manifest.files | {PROBES_NAME: file_digest(path)}
        write_manifest(copy, manifest.model_copy(update={"files": files}))
    problem = {"missing": "is missing", "damaged": "damaged", "unlisted": "has no", "of another model": "another model"}
    with pytest.raises(ArtifactError, match=problem[how]):
        open_runtime(copy, runtime, "cpu", cache_folder=tmp_path / "cache")


def test_damaged_model_is_refused_though_its_runtime_is_remembered(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    monkeypatch.setattr(selection, "_candidates", lambda *_: [ONNX])
    open_runtime(copy, "auto", "cpu", cache_folder=tmp_path / "cache")
    data = bytearray((copy / ONNX_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / ONNX_NAME).write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        open_runtime(copy, "auto", "cpu", cache_folder=tmp_path / "cache")


@pytest.mark.parametrize("shape", ["all gated", "widths 16, 24, 32", "narrow bottlenecks", "plain"])
def test_whatever_is_chosen_gives_the_portable_graphs_answers(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape)
    first = open_runtime(exported.folder, "auto", "cpu", cache_folder=tmp_path)
    assert_like_portable(first, exported)
    candidates = tried(first)
    assert candidates.keys() == {(candidate.runtime, "fp32") for candidate in FP32}
    assert candidates["onnx", "fp32"].image_ms is not None
    for candidate in candidates.values():
        assert (candidate.image_ms is None) is not (candidate.problem is None)

    monkeypatch.setattr(selection, "_measure", lambda *_: pytest.fail("it was measured again"))
    second = open_runtime(exported.folder, "auto", "cpu", cache_folder=tmp_path)
    assert (second.name, second.candidates) == (first.name, first.candidates)
    assert_like_portable(second, exported)
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(
        [*exported.manifest.files, "manifest.json"]
    )


def test_probes_that_are_not_the_models_answers_let_nothing_serve(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    probes = read_probes(copy, exported.manifest)
    write_probes(copy, replace(probes, logits=probes.logits[::-1]))
    files = exported.manifest.files | {PROBES_NAME: file_digest(copy / PROBES_NAME)}
    manifest: Manifest = exported.manifest.model_copy(update={"files": files})
    write_manifest(copy, manifest)
    monkeypatch.setattr(selection, "_candidates", lambda *_: [ONNX, COMPILED])
    with pytest.raises(RuntimeUnavailable, match="no runtime gives this model's answers here"):
        open_runtime(copy, "auto", "cpu", cache_folder=tmp_path / "cache")


def test_processor_without_bf16_is_served_in_fp32(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    processor = pytest.importorskip("service.engine.runtimes.compiled.processor", reason="needs llvmlite")
    monkeypatch.setattr(processor, "host_vector_unit", lambda: processor.VectorUnit(lanes=4, registers=16))
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    runtime = open_runtime(exported.folder, "auto", "cpu", "bf16", tmp_path)
    assert runtime.precision == "fp32"
    for library in ("openvino", "compiled"):
        assert str(tried(runtime)[library, "bf16"].problem).startswith("this processor has no bf16 arithmetic")
    with pytest.raises(RuntimeUnavailable, match="no bf16 arithmetic"):
        open_runtime(exported.folder, "openvino", "cpu", "bf16", tmp_path)


@pytest.mark.parametrize("missing", [("onnx",), ("openvino",), ("llvmlite",), ("onnx", "openvino", "llvmlite")])
def test_missing_packages_leave_the_portable_graph(
    exported: Exported, tmp_path: Path, missing: tuple[str, ...]
) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    processor = pytest.importorskip("service.engine.runtimes.compiled.processor", reason="needs llvmlite")
    program = f"""
import sys
for library in {missing!r}:
    sys.modules[library] = None
from pathlib import Path
from service.engine.runtimes import selection
from service.engine.runtimes.selection import open_runtime
selection._SECONDS_EACH = 0.001
runtime = open_runtime(Path({str(exported.folder)!r}), "auto", "cpu", "bf16", Path({str(tmp_path)!r}))
for candidate in runtime.candidates:
    if "is not installed" in (candidate.problem or ""):
        print(candidate.runtime, candidate.precision, candidate.problem.split(" needs ")[1])
    elif candidate.image_ms:
        print(candidate.runtime, candidate.precision, "runs")
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    lines = set(finished.stdout.splitlines())
    assert "onnx fp32 runs" in lines, finished.stderr
    needs = {"compiled": ("llvmlite", "onnx"), "openvino": ("openvino", "onnx")}
    told = set()
    # Without its instructions, that is told first, unless what would tell it is missing too.
    compiled = [COMPILED_BF16] if "llvmlite" in missing or processor.host_vector_unit().bf16_dot else []
    for candidate in (*FP32, OPENVINO_BF16, *compiled):
        lacks = [library for library in needs.get(candidate.runtime, ()) if library in missing]
        told |= {
            f"{candidate.runtime} {candidate.precision} {library}, which is not installed" for library in lacks[:1]
        }
    assert {line for line in lines if "not installed" in line} == told


def test_portable_graph_is_opened_once(lab: Lab) -> None:
    lab.choose()
    assert lab.opened.count(ONNX) == 1


def test_probes_are_run_one_by_one_as_images_come(lab: Lab) -> None:
    sizes: list[int] = []

    def noting(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
        sizes.append(len(logits))
        return logits, margins

    lab.offer(COMPILED, 1, noting)
    lab.choose(runtime="compiled")
    assert sizes == [1] * 12 + [4] * 3  # and then with forced gates
