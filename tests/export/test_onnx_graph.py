from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from torch import nn

from artifact.manifest import INPUT_NAMES, ONNX_NAME, OUTPUT_NAMES
from export.inference import GatedBlock, InferenceNetwork
from export.onnx_graph import write_onnx
from tests.export.forms import Exported, onnx_session
from tests.networks import inputs, small_network


@pytest.fixture
def model(exported: Exported) -> ModelProto:
    return onnx.load(exported.folder / ONNX_NAME)


def _branches(node: NodeProto) -> list[GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def _inside(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes of a graph, those of its branches included."""
    for node in graph.node:
        yield node
        for branch in _branches(node):
            yield from _inside(branch)


def _count(nodes: Iterator[NodeProto] | list[NodeProto], op: str) -> int:
    return sum(node.op_type == op for node in nodes)


def test_graph_passes_the_standards_own_checker(model: ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 9
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_inputs_and_outputs_are_those_of_the_contract(exported: Exported, model: ModelProto) -> None:
    def shapes(values: list[onnx.ValueInfoProto]) -> dict[str, list[str | int]]:
        return {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
        }

    gates = len(exported.network.gated_blocks)
    assert shapes(model.graph.input) == {INPUT_NAMES[0]: ["batch", 3, 16, 16], INPUT_NAMES[1]: ["offsets"]}
    assert shapes(model.graph.output) == {OUTPUT_NAMES[0]: ["batch", 6], OUTPUT_NAMES[1]: ["batch", gates]}


def test_every_gated_block_is_one_if_of_the_main_graph(exported: Exported, model: ModelProto) -> None:
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "If"]
    assert outputs == [f"{name}/output" for name in exported.network.gated_blocks]


def test_convolutions_of_gated_blocks_are_only_in_branches(exported: Exported, model: ModelProto) -> None:
    def convolutions(*modules: nn.Module) -> int:
        return sum(isinstance(layer, nn.Conv2d) for module in modules for layer in module.modules())

    serving = exported.serving
    gated = [block.residual for block in serving.blocks if isinstance(block, GatedBlock)]
    assert _count(list(model.graph.node), "Conv") == convolutions(serving) - convolutions(*gated)
    # Once for the whole batch and once for the gathered images.
    branches = [branch for node in model.graph.node for branch in _branches(node)]
    assert sum(_count(_inside(branch), "Conv") for branch in branches) == 2 * convolutions(*gated)


def test_branch_of_a_skipped_block_computes_nothing(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "If":
            skipped = next(attribute.g for attribute in node.attribute if attribute.name == "else_branch")
            assert [inner.op_type for inner in skipped.node] in (["Identity"], ["Relu"])


def test_each_weight_is_stored_once(exported: Exported, model: ModelProto) -> None:
    assert not any(len(branch.initializer) for node in _inside(model.graph) for branch in _branches(node))
    assert _count(_inside(model.graph), "Constant") == 0
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(set(names)) == len(names)
    # Everything but axes, positions, the threshold and the offset's default is a parameter of the network.
    stored = sum(math.prod(tensor.dims) for tensor in model.graph.initializer if "." in tensor.name)
    assert stored == sum(parameter.numel() for parameter in exported.serving.parameters())


def test_weights_are_the_networks(exported: Exported, model: ModelProto) -> None:
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, block in zip(exported.network.blocks, exported.serving.blocks, strict=True):
        for part, parameter in block.named_parameters():
            assert np.array_equal(stored[f"{name}.{part}"], parameter.detach().numpy()), f"{name}.{part}"


def test_offset_left_out_is_zero(exported: Exported) -> None:
    session = onnx_session(exported.folder / ONNX_NAME)
    images = inputs(exported.network, 3)
    for without, given in zip(
        session.run(None, {"images": images}), exported.forms["ONNX"](images, np.zeros(3, np.float32)), strict=True
    ):
        assert np.array_equal(without, given)


def test_one_offset_counts_for_the_whole_batch(exported: Exported) -> None:
    images, run = inputs(exported.network, 3), exported.forms["ONNX"]
    for one, each in zip(
        run(images, np.full(1, 0.5, np.float32)), run(images, np.full(3, 0.5, np.float32)), strict=True
    ):
        assert np.array_equal(one, each)


@pytest.mark.parametrize("count", [1, 2, 7, 24])
def test_batch_may_have_any_size(exported: Exported, count: int) -> None:
    logits, margins = exported.forms["ONNX"](inputs(exported.network, count), np.zeros(count, np.float32))
    assert logits.shape == (count, 6)
    assert margins.shape == (count, len(exported.network.gated_blocks))


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        network = small_network()
        write_onnx(InferenceNetwork(network), list(network.blocks), 16, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
