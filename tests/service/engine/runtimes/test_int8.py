from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from artifact.agreement import Agreement, LogitsAndMargins
from artifact.manifest import INT8_NAME, ArtifactError, read_manifest
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import int8 as int8_runtime
from service.engine.runtimes import selection
from service.engine.runtimes.base import Candidate, Precision, Runtime
from service.engine.runtimes.int8 import Int8Runtime
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.selection import open_runtime
from tests.networks import confident_network, exported_int8_once, inputs

INT8 = Candidate("int8", "int8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with an int8 graph."""
    return exported_int8_once(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the artifact to tamper with."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def opened(folder: Path) -> Int8Runtime:
    return Int8Runtime(folder, read_manifest(folder))


@pytest.fixture(scope="module")
def images() -> Float32Array:
    return inputs(confident_network(), 24)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are measured on a few images only."""
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)


def _chosen_among(runtime: Runtime) -> dict[tuple[str, Precision], Candidate]:
    return {(candidate.runtime, candidate.precision): candidate for candidate in runtime.candidates}


def test_runtime_says_what_it_is(opened: Int8Runtime, folder: Path) -> None:
    assert opened.name == f"onnxruntime {onnxruntime.__version__}, channels last"
    assert (opened.device, opened.precision, opened.runs_batches, opened.candidates) == ("cpu", "int8", False, ())
    assert opened.manifest == read_manifest(folder)


@pytest.mark.parametrize("offset", [0.0, 0.3, 1e4, -1e4])
def test_runtime_decides_and_predicts_nearly_as_the_portable_graph(
    opened: Int8Runtime, folder: Path, offset: float
) -> None:
    images, offsets = inputs(confident_network(), 100), np.full(100, offset, np.float32)
    agreement = Agreement()
    portable = OnnxRuntime(folder, opened.manifest, "cpu")
    agreement.compare(
        "int8", portable.run(images, offsets), opened.run(images, offsets), offsets, opened.manifest.gating
    )
    assert agreement.equal_gates > 0.97
    assert agreement.equal_predictions > 0.95


def test_image_gets_the_same_answer_alone_in_a_batch_and_from_any_thread(
    opened: Int8Runtime, images: Float32Array
) -> None:
    offsets = np.resize(np.array([0, 1e4, -1e4, 0.5], np.float32), 24)
    expected = opened.run(images, offsets)
    assert [output.shape for output in expected] == [(24, 2), (24, 4)]

    def run(row: int) -> None:
        row %= 24
        alone = opened.run(images[row : row + 1], offsets[row : row + 1])
        for one, all_of_them in zip(alone, expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_array_equal(one, all_of_them[row : row + 1])

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(run, range(96)))) == 96


def test_runtime_may_be_asked_for_whatever_the_lowest_precision(folder: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "int8"):
        assert isinstance(open_runtime(folder, "int8", "cpu", precision, tmp_path), Int8Runtime)
    with pytest.raises(RuntimeUnavailable, match="the int8 runtime is for CPUs"):
        open_runtime(folder, "int8", "cuda")


@pytest.mark.usefixtures("quick")
def test_auto_measures_it_only_where_int8_is_allowed(folder: Path, tmp_path: Path) -> None:
    allowed = {
        precision: _chosen_among(open_runtime(folder, "auto", "cpu", precision, tmp_path))
        for precision in ("fp32", "bf16", "int8")
    }
    key = (INT8.runtime, INT8.precision)
    assert [key in candidates for candidates in allowed.values()] == [False, False, True]
    candidate = allowed["int8"][key]
    assert candidate.problem is None
    assert candidate.image_ms is not None
    assert set(allowed["fp32"]) < set(allowed["bf16"]) < set(allowed["int8"])


@pytest.mark.usefixtures("quick")
def test_auto_does_without_where_the_artifact_has_no_int8_graph(artifact: Path, tmp_path: Path) -> None:
    chosen = open_runtime(artifact, "auto", "cpu", "int8", tmp_path)
    assert chosen.precision != "int8"
    assert replace(INT8, problem=f"the artifact in {artifact} has no {INT8_NAME}") in chosen.candidates


@pytest.mark.parametrize("allowed", ["fp32", "int8"])
def test_artifact_without_an_int8_graph_cannot_be_asked_for_it(artifact: Path, allowed: Precision) -> None:
    with pytest.raises(ArtifactError, match=f"has no {INT8_NAME}"):
        open_runtime(artifact, "int8", "cpu", allowed)


def test_damaged_graph_is_refused(copy: Path) -> None:
    content = bytearray((copy / INT8_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / INT8_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        open_runtime(copy, "int8", "cpu")


@pytest.mark.usefixtures("quick")
def test_processor_on_which_sums_saturate_does_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = int8_runtime.run_one_by_one

    def saturated(*arguments: object) -> LogitsAndMargins:
        logits, margins = right(*arguments)
        return logits, margins.clip(max=0)

    monkeypatch.setattr(int8_runtime, "run_one_by_one", saturated)
    chosen = open_runtime(folder, "auto", "cpu", "int8", tmp_path)
    assert chosen.precision != "int8"
    problem = _chosen_among(chosen)[INT8.runtime, INT8.precision].problem
    assert problem is not None
    assert "of the gates" in problem
    with pytest.raises(RuntimeUnavailable, match="channels last in int8 is not right for this model here"):
        open_runtime(folder, "int8", "cpu", "int8", tmp_path)


@pytest.mark.usefixtures("quick")
def test_branch_that_no_probe_takes_is_seen_to_be_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = int8_runtime.run_one_by_one

    def wrong_when_forced_open(session: object, images: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        logits, margins = right(session, images, offsets)
        return np.where(offsets[:, None] > 100, -logits, logits), margins

    monkeypatch.setattr(int8_runtime, "run_one_by_one", wrong_when_forced_open)
    chosen = open_runtime(folder, "auto", "cpu", "int8", tmp_path)
    assert "of the predictions" in str(_chosen_among(chosen)[INT8.runtime, INT8.precision].problem)
