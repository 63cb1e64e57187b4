"""The network in the memory layout of this processor, with an If around every gated block: ONNX Runtime at full speed.

ONNX Runtime keeps an ungated network in one blocked layout (NCHWc) from the first convolution to the last and fuses
each sum and ReLU into the convolution before it, but it does not look into the branches of an If. So the straight
network is given to its optimiser, and what comes back is cut into blocks again, each inside an If of its own. A gate is
pooled in the blocked layout, too. The result belongs to one kind of processor and one version of ONNX Runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifact.manifest import INPUT_NAMES, OUTPUT_NAMES
from service.engine.runtimes.portable_graph import GateWeights, PortableBlock, PortableGraph, UnknownGraph

_BLOCKED, _CONTRIB = "com.microsoft.nchwc", "com.microsoft"
_LARGEST_BLOCK = 16  # channels; 8 on some processors


def blocked_graph(graph: PortableGraph, gate_threshold: float) -> ModelProto:
    """Build the network for one image at a time, (1, 3, H, W); its inputs and outputs are the portable graph's.

    A gate is open where margin > gate_threshold - gate_offset.

    Raises:
        UnknownGraph: ONNX Runtime's optimised network cannot be cut into the blocks it was made of, or has no gates,
            so that there is nothing to cut.
    """
    if all(block.gate is None for block in graph.blocks):
        raise UnknownGraph("without gates ONNX Runtime optimises the portable graph itself")
    optimised = _optimised(graph.straight())
    return _Assembly(graph, optimised).model(gate_threshold)


def _optimised(straight: ModelProto) -> ModelProto:
    """What ONNX Runtime makes of an ungated network on this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the result is for this machine only, which is what is wanted
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        onnxruntime.InferenceSession(straight.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


class _Assembly:
    """Puts the optimised nodes of each block into a branch and adds the gates."""

    def __init__(self, graph: PortableGraph, optimised: ModelProto) -> None:
        self._graph = graph
        self._optimised = optimised
        self._weights: Mapping[str, TensorProto] = {
            **graph.weights,
            **{weight.name: weight for weight in optimised.graph.initializer},
        }
        self._producers = {output: node for node in optimised.graph.node for output in node.output}
        self._nodes: list[NodeProto] = []
        # Where a block's output went through an If, those who read it read the If's output instead.
        self._renamed: dict[str, str] = {}

    def model(self, gate_threshold: float) -> ModelProto:
        """The finished model."""
        parts = self._parts()
        self._nodes += [_node("Sub", [_THRESHOLD, INPUT_NAMES[1]], _LIMIT)]
        self._add(parts[""])
        margins = []
        for block in self._graph.blocks:
            shortcut, residual = parts[f"{block.name}/shortcut"], parts[f"{block.name}/residual"]
            before = self._renamed.get(self._input(block, residual), self._input(block, residual))
            if block.gate is None:
                self._add([*shortcut, *residual])
            else:
                margins.append(self._margin(block.name, block.gate, before))
                self._add_gated(block.name, residual, shortcut, before)
        self._add(parts["tail"])
        self._nodes.append(_node("Concat", margins, OUTPUT_NAMES[1], axis=1))
        used = {name for node in _with_branches(self._nodes) for name in node.input}
        weights = {
            **self._weights,
            _THRESHOLD: numpy_helper.from_array(np.array([gate_threshold], np.float32), _THRESHOLD),
            INPUT_NAMES[1]: numpy_helper.from_array(np.zeros(1, np.float32), INPUT_NAMES[1]),
        }
        side = self._graph.input_size
        main = helper.make_graph(
            self._nodes,
            "convnet_aig_blocked",
            [_float(INPUT_NAMES[0], [1, 3, side, side]), _float(INPUT_NAMES[1], [1])],
            [_float(name, None) for name in OUTPUT_NAMES],
            [weight for name, weight in weights.items() if name in used],
        )
        domains = [("", 18), (_CONTRIB, 1), (_BLOCKED, 1)]
        opsets = [helper.make_operatorsetid(domain, version) for domain, version in domains]
        return helper.make_model(main, opset_imports=opsets, ir_version=9)

    def _parts(self) -> dict[str, list[NodeProto]]:
        """The optimised nodes by where they belong; fused nodes keep the name of one of those they were made of."""
        parts: dict[str, list[NodeProto]] = {"": [], "tail": []}
        for block in self._graph.blocks:
            parts |= {f"{block.name}/shortcut": [], f"{block.name}/residual": []}
        for node in self._optimised.graph.node:
            owner = "/".join(node.name.split("/")[:2])
            if owner not in parts:
                owner = "tail" if parts[f"{self._graph.blocks[-1].name}/residual"] else ""
            parts[owner].append(node)
        if not all(parts[f"{block.name}/residual"] for block in self._graph.blocks):
            raise UnknownGraph("the optimised network has lost a block")
        return parts

    def _input(self, block: PortableBlock, residual: Sequence[NodeProto]) -> str:
        """The optimised tensor that enters a block: what its first node reads."""
        tensor: str = residual[0].input[0]
        if tensor not in self._producers:
            raise UnknownGraph(f"{block.name} reads {tensor}, which nothing makes")
        return tensor

    def _margin(self, name: str, gate: GateWeights, features: str) -> str:
        """Add a gate; return its (1, 1) margin."""
        pooled, flat, hidden, margin = (f"{name}/gate/{part}" for part in ("pool", "flat", "hidden", "margin"))
        weights = [gate.hidden_weight, gate.hidden_bias, gate.margin_weight, gate.margin_bias]
        channels = self._weights[gate.hidden_weight].dims[1]
        domain = _BLOCKED if self._is_blocked(features) else ""
        self._nodes.append(_node("GlobalAveragePool", [features], pooled, domain))
        # With one value for each channel the blocked layout and the plain one are the same, but for what fills the
        # last block up.
        if domain and channels % _LARGEST_BLOCK:
            self._nodes.append(_node("ReorderOutput", [pooled], f"{pooled}/cut", domain, channels=channels))
            pooled = f"{pooled}/cut"
        self._nodes += [
            _node("Flatten", [pooled], flat),
            _node("FusedGemm", [flat, *weights[:2]], hidden, _CONTRIB, transB=1, activation="Relu"),
            _node("Gemm", [hidden, *weights[2:]], margin, transB=1),
        ]
        return margin

    def _add_gated(self, name: str, residual: list[NodeProto], shortcut: list[NodeProto], before: str) -> None:
        """Add an If that runs the residual branch where the gate is open."""
        output, decision = residual[-1].output[0], f"{name}/open"
        bypass = shortcut[-1].output[0] if shortcut else before
        if self._is_blocked(bypass) != self._is_blocked(output):
            raise UnknownGraph(f"{name} changes the memory layout")
        executed = [self._renamed_inputs(node) for node in [*shortcut, *residual]]
        skipped = self._skipped(name, shortcut, before)
        self._nodes += [
            _node("Greater", [f"{name}/gate/margin", _LIMIT], decision),
            helper.make_node(
                "If",
                [decision],
                [f"{name}/gated"],
                name=f"{name}/gated",
                then_branch=helper.make_graph(executed, f"{name}/executed", [], [_float(output, None)]),
                else_branch=helper.make_graph(skipped, f"{name}/skipped", [], [_float(skipped[-1].output[0], None)]),
            ),
        ]
        self._renamed[output] = f"{name}/gated"
        self._producers[f"{name}/gated"] = residual[-1]

    def _skipped(self, name: str, shortcut: Sequence[NodeProto], before: str) -> list[NodeProto]:
        """What a closed gate leaves to do. A block's output is a ReLU's, so without a projection that is nothing."""
        if not shortcut:
            return [_node("Identity", [before], f"{name}/skipped")]
        *others, projection = [self._renamed_inputs(node) for node in shortcut]
        for node in (*others, projection):
            node.name = f"{name}/skipped/{node.name}"
        own = {output: f"{name}/skipped/{output}" for node in (*others, projection) for output in node.output}
        for node in (*others, projection):
            node.input[:] = [own.get(tensor, tensor) for tensor in node.input]
            node.output[:] = [own[tensor] for tensor in node.output]
        if (projection.domain, projection.op_type) == (_BLOCKED, "Conv"):  # which can do the ReLU on the way
            projection.attribute.append(helper.make_attribute("activation", "Relu"))
            return [*others, projection]
        return [*others, projection, _node("Relu", [projection.output[0]], f"{name}/skipped")]

    def _is_blocked(self, tensor: str) -> bool:
        producer = self._producers.get(tensor)
        return producer is not None and producer.domain == _BLOCKED and producer.op_type != "ReorderOutput"

    def _add(self, nodes: Sequence[NodeProto]) -> None:
        self._nodes += [self._renamed_inputs(node) for node in nodes]

    def _renamed_inputs(self, node: NodeProto) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._renamed.get(tensor, tensor) for tensor in node.input]
        return copy


_THRESHOLD, _LIMIT = "blocked/threshold", "blocked/limit"


def _node(op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(op, list(inputs), [output], name=output, domain=domain, **attributes)


def _float(name: str, shape: Sequence[int] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _with_branches(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes and those in their branches."""
    found = list(nodes)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _with_branches(attribute.g.node)
    return found
