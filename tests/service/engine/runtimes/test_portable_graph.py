from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from artifact.manifest import ONNX_NAME, Manifest
from artifact.preprocessing import Float32Array
from service.engine.runtimes.portable_graph import PortableGraph, UnknownGraph, read_portable_graph
from tests.service.engine.runtimes.artifacts import Exported, exported_shape


@pytest.fixture(params=["widths 4, 8, 16", "all gated", "imagenet stem, bottlenecks", "last without a gate", "plain"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), request.param)


@pytest.fixture
def default(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Five blocks, the first without a gate, the third and the last with projections."""
    return exported_shape(tmp_path_factory.getbasetemp(), "widths 4, 8, 16")


@pytest.fixture
def copy(default: Exported, tmp_path: Path) -> Path:
    """The ONNX file to tamper with."""
    return Path(shutil.copy(default.folder / ONNX_NAME, tmp_path))


def _read(exported: Exported) -> PortableGraph:
    return read_portable_graph(exported.folder / ONNX_NAME, exported.manifest)


def _run(model: ModelProto, images: Float32Array) -> Float32Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {model.graph.input[0].name: images})
    return np.asarray(output, np.float32)


def test_blocks_are_those_of_the_manifest_one_after_the_other(exported: Exported) -> None:
    graph = _read(exported)
    assert [block.name for block in graph.blocks] == [block.name for block in exported.manifest.blocks]
    assert [block.gate is not None for block in graph.blocks] == [block.gated for block in exported.manifest.blocks]
    assert [bool(block.shortcut_nodes) for block in graph.blocks] == [
        block.shortcut_macs > 0 for block in exported.manifest.blocks
    ]
    tensor = graph.stem[-1].output[0]
    for block in graph.blocks:
        assert block.input == tensor
        assert (block.shortcut == block.input) is not bool(block.shortcut_nodes)
        tensor = block.output
    assert tensor in graph.tail[0].input
    assert graph.input_size == exported.manifest.input_size


def test_gates_weights_are_found_by_their_names(exported: Exported) -> None:
    graph = _read(exported)
    channels = {block.name: block.residual_nodes[0].input[1] for block in graph.blocks}
    for block in graph.blocks:
        if block.gate is not None:
            width = graph.weights[channels[block.name]].dims[1]
            assert list(graph.weights[block.gate.hidden_weight].dims) == [16, width]
            assert list(graph.weights[block.gate.hidden_bias].dims) == [16]
            assert list(graph.weights[block.gate.margin_weight].dims) == [1, 16]
            assert list(graph.weights[block.gate.margin_bias].dims) == [1]


def test_part_of_the_network_carries_the_weights_it_uses_and_no_others(default: Exported) -> None:
    graph = _read(default)
    block = graph.blocks[2]
    nodes = [*block.shortcut_nodes, *block.residual_nodes]
    value = helper.make_tensor_value_info
    model = graph.model(
        nodes,
        [value(block.input, TensorProto.FLOAT, [1, 4, 16, 16])],
        [value(block.output, TensorProto.FLOAT, None)],
    )
    assert {weight.name.split(".")[0] for weight in model.graph.initializer} == {"stage2_block1"}
    assert len(model.graph.initializer) == 3 * 2  # weight and bias of the projection and of two convolutions
    assert _run(model, np.ones((1, 4, 16, 16), np.float32)).shape == (1, 8, 8, 8)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x09"])
def test_file_that_is_no_model_is_unknown(default: Exported, tmp_path: Path, content: bytes) -> None:
    (tmp_path / ONNX_NAME).write_bytes(content)
    with pytest.raises(UnknownGraph):
        read_portable_graph(tmp_path / ONNX_NAME, default.manifest)


def _renamed(manifest: Manifest, index: int, **changes: object) -> Manifest:
    blocks = list(manifest.blocks)
    blocks[index] = blocks[index].model_copy(update=changes)
    return manifest.model_copy(update={"blocks": tuple(blocks)})


@pytest.mark.parametrize(
    ("index", "changes", "problem"),
    [
        pytest.param(1, {"name": "stage9_block9"}, "no stem, block", id="a block of another name"),
        pytest.param(0, {"gated": True}, "no branch", id="a gate too many"),
    ],
)
def test_manifest_of_another_network_is_told(
    default: Exported, index: int, changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(UnknownGraph, match=problem):
        read_portable_graph(default.folder / ONNX_NAME, _renamed(default.manifest, index, **changes))


def test_blocks_in_another_order_are_told(default: Exported) -> None:
    swapped = default.manifest.model_copy(update={"blocks": default.manifest.blocks[::-1]})
    with pytest.raises(UnknownGraph, match="does not"):
        read_portable_graph(default.folder / ONNX_NAME, swapped)


def _drop(graph: GraphProto, owner: str) -> None:
    kept = [node for node in graph.node if node.name.split("/")[0] != owner]
    del graph.node[:]
    graph.node.extend(kept)


def _empty_branch(graph: GraphProto) -> None:
    branch = next(node for node in graph.node if node.op_type == "If")
    for attribute in branch.attribute:
        del attribute.g.node[:]


def _branchless(graph: GraphProto) -> None:
    branch = next(node for node in graph.node if node.op_type == "If")
    del branch.attribute[:]


def _classify_the_stem(graph: GraphProto) -> None:
    pool = next(node for node in graph.node if node.name == "pool")
    pool.input[0] = "stem/1"


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda graph: _drop(graph, "stem"), id="no stem"),
        pytest.param(lambda graph: _drop(graph, "stage2_block2"), id="no second block"),
        pytest.param(lambda graph: _drop(graph, "pool"), id="no pooling"),
        pytest.param(lambda graph: _drop(graph, "logits"), id="no classifier"),
        pytest.param(_empty_branch, id="empty branches"),
        pytest.param(_branchless, id="no branches"),
        pytest.param(_classify_the_stem, id="last block left out"),
    ],
)
def test_graph_that_is_built_otherwise_is_unknown(
    default: Exported, copy: Path, tamper: Callable[[GraphProto], None]
) -> None:
    model = onnx.load(str(copy))
    tamper(model.graph)
    onnx.save(model, str(copy))
    with pytest.raises(UnknownGraph):
        read_portable_graph(copy, default.manifest)


def test_weights_are_those_of_the_file(default: Exported) -> None:
    graph = _read(default)
    stored = {weight.name: weight for weight in onnx.load(str(default.folder / ONNX_NAME)).graph.initializer}
    assert graph.weights.keys() == stored.keys()
    classifier = numpy_helper.to_array(graph.weights["classifier.weight"])
    np.testing.assert_array_equal(classifier, default.network.classifier.weight.detach().numpy())
