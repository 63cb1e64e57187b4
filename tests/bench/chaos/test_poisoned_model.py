from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifact.manifest import read_manifest
from artifact.probes import read_probes
from bench.chaos.model_folder import ModelFolder
from bench.chaos.poisoned_model import poisons, write_poisoned_model
from service.engine.errors import InferenceFailed
from service.engine.job import Answer
from service.engine.runtimes.selection import open_runtime
from service.engine.workers.local import LocalWorker
from service.images.decoding import ImageDecoder
from tests.service.engine.workers.processes import job


@pytest.fixture(scope="module")
def poisoned(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "poisoned"
    write_poisoned_model(artifact, folder)
    return folder


def test_poisons_fail_each_in_its_way_and_nobody_beside_them(poisoned: Path, pictures: list[bytes]) -> None:
    runtime = open_runtime(poisoned, "onnx", "cpu")
    decoder = ImageDecoder(runtime.manifest.preprocessing, max_bytes=10**6, max_pixels=10**6)
    worker = LocalWorker(runtime, decoder.decode)
    deadly = poisons(runtime.manifest)
    files = [pictures[0], deadly["nan"], pictures[1], deadly["raise"]]
    outcomes = worker.work([job(data) for data in files])
    assert [type(outcome) for outcome in outcomes] == [Answer, InferenceFailed, Answer, InferenceFailed]
    assert "no numbers" in str(outcomes[1].__cause__)  # type: ignore[union-attr]
    assert "out of data bounds" in str(outcomes[3].__cause__)  # type: ignore[union-attr]


@pytest.mark.slow
def test_poisoned_model_is_a_whole_artifact_with_answers_of_its_own(artifact: Path, poisoned: Path) -> None:
    manifest, healthy = read_manifest(poisoned), read_manifest(artifact)
    assert (manifest.name, manifest.version) == (healthy.name, "2")
    theirs, ours = read_probes(poisoned, manifest), read_probes(artifact, healthy)
    np.testing.assert_allclose(theirs.logits, ours.logits / 2, atol=1e-4)
    np.testing.assert_allclose(theirs.margins, ours.margins, atol=1e-4)
    assert open_runtime(poisoned, "auto", "cpu").name.startswith("onnxruntime")


def test_folder_can_be_damaged_restored_and_given_another_model(artifact: Path, poisoned: Path, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "model", {"1": artifact, "2": poisoned})
    whole = (folder.path / "model.onnx").read_bytes()
    folder.damage()
    damaged = (folder.path / "model.onnx").read_bytes()
    assert sum(one != other for one, other in zip(whole, damaged, strict=True)) == 1
    folder.restore()
    assert (folder.path / "model.onnx").read_bytes() == whole
    for version in ("2", "1"):
        folder.swap()
        assert folder.version == read_manifest(folder.path).version == version
        assert open_runtime(folder.path, "onnx", "cpu").manifest.version == version
