from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from artifact.agreement import Agreement
from artifact.manifest import INT8_NAME, MANIFEST_NAME, ArtifactError, read_manifest
from service.engine.runtimes.base import Model
from service.engine.runtimes.cascade import CascadeRuntime
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.registry import RUNTIMES
from service.engine.runtimes.selection import open_runtime
from tests.cascades import cascade, exported_cascade, exported_int8_cascade
from tests.networks import inputs
from tests.service.engine.runtimes.artifacts import OFFSETS


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def _model(folder: Path) -> Model:
    manifest = read_manifest(folder)
    return Model(folder, manifest, MachineCache([], manifest))


@pytest.mark.parametrize("networks", [2, 3])
@pytest.mark.parametrize("name", ["compiled", "openvino", "torchscript"])
def test_every_runtime_answers_as_the_one_graph_of_the_cascade(root: Path, name: str, networks: int) -> None:
    folder, manifest = exported_cascade(root, networks)
    runtime = RUNTIMES[name].open(_model(folder), "cpu", "fp32")
    portable = OnnxRuntime(folder, manifest, "cpu")
    images, agreement = inputs(cascade().networks[0], 30), Agreement()
    for offsets in (*(np.full(30, offset, np.float32) for offset in OFFSETS), np.resize(OFFSETS, 30)):
        given = offsets.astype(np.float32)
        expected, actual = portable.run(images, given), runtime.run(images, given)
        agreement.compare(name, expected, actual, given, manifest.gating)
    assert agreement.problems == []
    assert agreement.gates > 500


def test_networks_that_are_run_in_turn_are_described_as_one(root: Path) -> None:
    folder, manifest = exported_cascade(root, 2)
    runtime = RUNTIMES["compiled"].open(_model(folder), "cpu", "fp32")
    assert isinstance(runtime, CascadeRuntime)
    assert (runtime.device, runtime.precision, runtime.runs_batches) == ("cpu", "fp32", False)
    assert runtime.manifest == manifest
    assert isinstance(RUNTIMES["onnx"].open(_model(folder), "cpu", "fp32"), OnnxRuntime)


@pytest.mark.parametrize("name", ["int8", "compiled"])
def test_int8_graphs_run_in_turn(root: Path, name: str) -> None:
    folder, manifest = exported_int8_cascade(root)
    runtime = open_runtime(folder, name, precision="int8", cache_folder=root / "cache")  # type: ignore[arg-type]
    assert runtime.precision == "int8"
    images, zeros = inputs(cascade().networks[0], 60), np.zeros(60, np.float32)
    agreement = Agreement()
    expected = OnnxRuntime(folder, manifest, "cpu").run(images, zeros)
    agreement.compare("int8", expected, runtime.run(images, zeros), zeros, manifest.gating)
    assert agreement.low_precision_problem() is None
    assert 0.1 < manifest.executed(expected[1], zeros)[:, manifest.gated_indices[0]].mean() < 0.9


def test_fastest_runtime_is_chosen_and_remembered_beside_the_cascade(root: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported_cascade(root, 2)[0], tmp_path / "cascade"))
    first, second = open_runtime(folder), open_runtime(folder)
    assert first.candidates == second.candidates
    assert {candidate.runtime for candidate in first.candidates if candidate.image_ms} >= {"onnx", "compiled"}
    kept = {path.name for path in (folder / ".cache").rglob("*.bin")}
    assert "compiled-fp32.bin" in kept
    assert not list(folder.glob("network*/.cache"))


@pytest.mark.parametrize("name", [f"network2/{MANIFEST_NAME}", "network2/model.onnx", f"network2/{INT8_NAME}"])
@pytest.mark.parametrize("missing", [False, True])
def test_damaged_network_is_refused(root: Path, tmp_path: Path, name: str, missing: bool) -> None:
    folder = Path(shutil.copytree(exported_int8_cascade(root)[0], tmp_path / "cascade"))
    path = folder / name
    if missing:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"missing|damaged"):
        open_runtime(folder, "compiled", precision="int8")


def test_cache_of_a_cascade_depends_on_its_networks(root: Path, tmp_path: Path) -> None:
    _, manifest = exported_int8_cascade(root)
    MachineCache([tmp_path], manifest).write("selection", b"here")
    assert MachineCache([tmp_path], manifest).of(manifest).read("selection") == b"here"
    files = manifest.files | {f"network2/{MANIFEST_NAME}": "0" * 64}
    assert MachineCache([tmp_path], manifest.model_copy(update={"files": files})).read("selection") is None
