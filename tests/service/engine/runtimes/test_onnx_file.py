"""Models that would have other files read than the one whose digest the manifest tells."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import onnx
import pytest

from artifact.manifest import ONNX_NAME, ArtifactError, Manifest, file_digest, read_manifest, write_manifest
from service.engine.runtimes.base import RuntimeName
from service.engine.runtimes.onnx_file import verified_onnx_file
from service.engine.runtimes.selection import open_runtime

ELSEWHERE = "elsewhere.bin"


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact to tamper with, beside a file that it does not own."""
    copied = shutil.copytree(artifact, tmp_path / "copy")
    (copied / ELSEWHERE).write_bytes(bytes(1_000_000))
    return copied


def _tampered(folder: Path, nested: bool) -> Manifest:
    """Move a tensor out of the ONNX file, and make the manifest tell the new digest."""
    path = folder / ONNX_NAME
    model = onnx.load(str(path), load_external_data=False)
    tensor = _innermost_constant(model.graph) if nested else model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", ELSEWHERE), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    manifest = read_manifest(folder)
    manifest = manifest.model_copy(update={"files": manifest.files | {ONNX_NAME: file_digest(path)}})
    write_manifest(folder, manifest)
    return manifest


def _innermost_constant(graph: onnx.GraphProto) -> onnx.TensorProto:
    """A weight added to the branch of an If inside a branch of an If, which the outermost graph does not mention."""
    (outer, *_) = (node for node in graph.node if node.op_type == "If")
    branch = next(attribute.g for attribute in outer.attribute if attribute.name == "then_branch")
    inner = next(node for node in branch.node if node.op_type == "If")
    innermost = next(attribute.g for attribute in inner.attribute if attribute.name == "then_branch")
    return innermost.initializer.add(name="stolen", data_type=onnx.TensorProto.FLOAT, dims=[4], raw_data=bytes(16))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("runtime", ["auto", "onnx", "compiled", "openvino"])
def test_model_that_keeps_tensors_elsewhere_is_refused(copy: Path, runtime: RuntimeName, nested: bool) -> None:
    _tampered(copy, nested)
    with pytest.raises(ArtifactError, match="tensors in other files"):
        open_runtime(copy, runtime, "cpu")


def test_without_the_onnx_package_a_doubt_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = _tampered(copy, nested=True)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArtifactError, match="onnx package is needed"):
        verified_onnx_file(copy, manifest, ONNX_NAME)


def test_model_that_only_speaks_of_a_location_is_opened(copy: Path) -> None:
    path = copy / ONNX_NAME
    model = onnx.load(str(path))
    model.doc_string = "location"
    path.write_bytes(model.SerializeToString())
    manifest = read_manifest(copy).model_copy(update={"files": {ONNX_NAME: file_digest(path)}})
    assert verified_onnx_file(copy, manifest, ONNX_NAME) == path


def test_file_that_is_no_model_is_refused(copy: Path) -> None:
    path = copy / ONNX_NAME
    path.write_bytes(b"\xffno location of anything")
    manifest = read_manifest(copy).model_copy(update={"files": {ONNX_NAME: file_digest(path)}})
    with pytest.raises(ArtifactError, match="is no ONNX model"):
        verified_onnx_file(copy, manifest, ONNX_NAME)


def test_model_as_it_is_exported_is_opened_without_the_onnx_package(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert verified_onnx_file(artifact, read_manifest(artifact), ONNX_NAME) == artifact / ONNX_NAME
