"""The portable ONNX file read back as what it is: a stem, residual blocks with their gates, and a classifier.

The file that ships is standard ONNX for any runtime. To run it faster on the machine at hand its parts are put together
differently; this module takes it apart. It relies on the names the export gives to nodes and weights, which are part of
the artifact's contract, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from artifact.manifest import OUTPUT_NAMES, Manifest


class UnknownGraph(ValueError):  # noqa: N818 (named like the state it tells)
    """The ONNX file is not built as this project's export builds it."""


@dataclass(frozen=True)
class GateWeights:
    """Names of a gate's weights: hidden (16, C) and (16,), margin (1, 16) and (1,)."""

    hidden_weight: str
    hidden_bias: str
    margin_weight: str
    margin_bias: str


@dataclass(frozen=True)
class PortableBlock:
    """One residual block as straight-line nodes.

    Attributes:
        name: of the block.
        gate: its weights; None where the block always runs.
        input: tensor the block gets.
        shortcut: tensor that is added to the residual; the input itself where the shortcut is the identity.
        output: tensor the block returns.
        shortcut_nodes: the projection, if any.
        residual_nodes: the residual branch, the sum with the shortcut, and the ReLU.
    """

    name: str
    gate: GateWeights | None
    input: str
    shortcut: str
    output: str
    shortcut_nodes: tuple[NodeProto, ...]
    residual_nodes: tuple[NodeProto, ...]


@dataclass(frozen=True)
class PortableGraph:
    """The parts of the file.

    Attributes:
        weights: every weight by name.
        stem, tail: nodes before the first block and from the last one to the logits.
        blocks: in order.
        input_size: H and W of the images, in pixels.
    """

    weights: Mapping[str, TensorProto]
    stem: tuple[NodeProto, ...]
    blocks: tuple[PortableBlock, ...]
    tail: tuple[NodeProto, ...]
    input_size: int

    def model(
        self, nodes: Iterable[NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> ModelProto:
        """A model of some of the nodes, with the weights they use."""
        nodes = list(nodes)
        used = {name for node in nodes for name in node.input}
        weights = [weight for name, weight in self.weights.items() if name in used]
        graph = helper.make_graph(nodes, "convnet_aig", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_operatorsetid("", 18)], ir_version=9)


def read_portable_graph(path: Path, manifest: Manifest) -> PortableGraph:
    """Take an artifact's model.onnx apart.

    Raises:
        UnknownGraph: it is not built as the export builds it.
    """
    try:
        return _taken_apart(onnx.load(str(path)).graph, manifest)
    except UnknownGraph:
        raise
    except Exception as error:  # protobuf's on other files, and a missing node, branch or weight
        raise UnknownGraph(f"it cannot be taken apart: {error!r}") from error


def _taken_apart(graph: GraphProto, manifest: Manifest) -> PortableGraph:
    by_block: dict[str, list[NodeProto]] = {block.name: [] for block in manifest.blocks}
    stem, tail = [], []
    for node in graph.node:
        owner = node.name.split("/")[0]
        if owner in by_block:
            by_block[owner].append(node)
        elif owner == "stem":
            stem.append(node)
        elif owner in ("pool", OUTPUT_NAMES[0]):
            tail.append(node)
    if not stem or len(tail) != 2 or not all(by_block.values()):
        raise UnknownGraph("the ONNX file has no stem, block or classifier where it should")
    blocks = []
    tensor = stem[-1].output[0]
    for block in manifest.blocks:
        blocks.append(_block(block.name, block.gated, by_block[block.name], tensor))
        tensor = blocks[-1].output
    if tensor not in tail[0].input:
        raise UnknownGraph("the last block does not lead to the classifier")
    weights = {weight.name: weight for weight in graph.initializer}
    return PortableGraph(weights, tuple(stem), tuple(blocks), tuple(tail), manifest.input_size)


def _block(name: str, gated: bool, nodes: list[NodeProto], tensor: str) -> PortableBlock:
    shortcut_nodes = [node for node in nodes if node.name.startswith(f"{name}/shortcut/")]
    shortcut = shortcut_nodes[-1].output[0] if shortcut_nodes else tensor
    if gated:
        branch = next((node for node in nodes if node.op_type == "If"), None)
        if branch is None:
            raise UnknownGraph(f"{name} has a gate but no branch")
        output = branch.output[0]
        residual = _whole_batch_nodes(branch, f"{name}/residual", output)
    else:
        residual = [node for node in nodes if node not in shortcut_nodes]
        output = residual[-1].output[0]
    if not any(shortcut in node.input for node in residual):
        raise UnknownGraph(f"{name} does not add its shortcut")
    weights = (f"{name}.gate.{part}" for part in ("hidden.weight", "hidden.bias", "margin.weight", "margin.bias"))
    gate = GateWeights(*weights) if gated else None
    return PortableBlock(name, gate, tensor, shortcut, output, tuple(shortcut_nodes), tuple(residual))


def _whole_batch_nodes(branch: NodeProto, prefix: str, output: str) -> list[NodeProto]:
    """The nodes that run a block on the whole batch, under names of their own, ending in `output`."""
    whole = _subgraph(_subgraph(branch, "then_branch").node[0], "then_branch")
    names = {whole.output[0].name: output}
    nodes = []
    for position, node in enumerate(whole.node):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{position}"
        copy.input[:] = [names.get(tensor, tensor) for tensor in node.input]
        copy.output[:] = [names.setdefault(tensor, copy.name) for tensor in node.output]
        nodes.append(copy)
    return nodes


def _subgraph(node: NodeProto, name: str) -> GraphProto:
    for attribute in node.attribute:
        if attribute.name == name:
            graph: GraphProto = attribute.g
            return graph
    raise UnknownGraph(f"{node.name} has no {name}")
