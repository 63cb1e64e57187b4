"""The ONNX file of an artifact: one If for every gated block, each weight in the file once.

Inside a gated block's If the batch takes one of three ways, so a skipped block is never computed:

    no gate open    -> the shortcut alone
    every gate open -> the residual branch on the whole batch
    some open       -> the images with an open gate are gathered, run through the residual branch and scattered back
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from artifact.manifest import INPUT_NAMES, OUTPUT_NAMES
from export.inference import GatedBlock, InferenceGate, InferenceNetwork, UngatedBlock

# Opset 18 and IR version 9 hold all that is needed and are read by runtimes of 2023 and later.
_OPSET, _IR_VERSION = 18, 9


class _Graph:
    """Nodes of the main graph or of one branch. Weights always go to the main graph, where branches can see them."""

    def __init__(self, prefix: str, weights: dict[str, TensorProto]) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self._weights = weights

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name, which is unique in the whole model."""
        output = f"{self.prefix}{name}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, name: str, values: np.ndarray) -> str:
        """Store a weight under its own name, once; return the name."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def branch(self, name: str) -> _Graph:
        """A graph for a branch of an If."""
        return _Graph(f"{self.prefix}{name}/", self._weights)

    def as_branch(self, output: str) -> GraphProto:
        """The finished branch, with one output."""
        value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        return helper.make_graph(self.nodes, self.prefix.rstrip("/"), [], [value])


def write_onnx(network: InferenceNetwork, block_names: Sequence[str], input_size: int, path: Path) -> None:
    """Build the graph, check it against the ONNX standard, and write it to `path`.

    Args:
        network: to export.
        block_names: of its blocks, in order; nodes and weights are named after them.
        input_size: H and W of the images, in pixels.
    """
    weights: dict[str, TensorProto] = {}
    graph = _Graph("", weights)
    offset = graph.add("Unsqueeze", [INPUT_NAMES[1], graph.weight("axis_1", np.array([1]))], "offset_column")
    x = _sequential(graph, network.stem, INPUT_NAMES[0], "stem", "stem")
    margins = []
    for name, block in zip(block_names, network.blocks, strict=True):
        assert isinstance(block, GatedBlock | UngatedBlock)
        shortcut = _sequential(graph, block.shortcut, x, f"{name}/shortcut", f"{name}.shortcut")
        if isinstance(block, GatedBlock):
            margin = _margin(graph, block.gate, x, name)
            margins.append(margin)
            x = _gated_residual(graph, block, x, shortcut, graph.add("Add", [margin, offset], f"{name}/shifted"), name)
        else:
            x = _residual_sum(graph, block.residual, x, shortcut, name, name)
    pooled = _mean_pool(graph, x, "pool")
    classifier = [
        graph.weight("classifier.weight", _array(network.classifier.weight)),
        graph.weight("classifier.bias", _array(network.classifier.bias)),
    ]
    graph.nodes.append(
        helper.make_node("Gemm", [pooled, *classifier], [OUTPUT_NAMES[0]], name=OUTPUT_NAMES[0], transB=1)
    )
    if margins:
        graph.nodes.append(helper.make_node("Concat", margins, [OUTPUT_NAMES[1]], name=OUTPUT_NAMES[1], axis=1))
    else:
        _empty_margins(graph, pooled)
    model = _model(graph, weights, input_size, network.classifier.out_features, len(margins))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _model(
    graph: _Graph, weights: dict[str, TensorProto], input_size: int, classes: int, gates: int
) -> onnx.ModelProto:
    # An initializer under the name of an input is that input's default: a caller may leave the offset out.
    default_offset = numpy_helper.from_array(np.zeros(1, np.float32), INPUT_NAMES[1])
    main = helper.make_graph(
        graph.nodes,
        "convnet_aig",
        [
            helper.make_tensor_value_info(INPUT_NAMES[0], TensorProto.FLOAT, ["batch", 3, input_size, input_size]),
            helper.make_tensor_value_info(INPUT_NAMES[1], TensorProto.FLOAT, ["offsets"]),
        ],
        [
            helper.make_tensor_value_info(OUTPUT_NAMES[0], TensorProto.FLOAT, ["batch", classes]),
            helper.make_tensor_value_info(OUTPUT_NAMES[1], TensorProto.FLOAT, ["batch", gates]),
        ],
        [default_offset, *weights.values()],
    )
    opset = helper.make_operatorsetid("", _OPSET)
    return helper.make_model(main, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="convnet-aig-serving")


def _margin(graph: _Graph, gate: InferenceGate, x: str, name: str) -> str:
    """The (N, 1) margins of a gate: one pooling and two matrix products."""
    pooled = _mean_pool(graph, x, f"{name}/gate/pool")
    hidden = _linear(graph, gate.hidden, pooled, f"{name}/gate/hidden", f"{name}.gate.hidden")
    hidden = graph.add("Relu", [hidden], f"{name}/gate/relu")
    return _linear(graph, gate.margin, hidden, f"{name}/gate/margin", f"{name}.gate.margin")


def _gated_residual(graph: _Graph, block: GatedBlock, x: str, shortcut: str, shifted: str, name: str) -> str:
    """The block's output, computed only where `shifted`, the (N, 1) margins plus offset, is above the threshold."""
    threshold = graph.weight("gate_threshold", np.array(block.gate_threshold, np.float32))
    # Highest and lowest margin of the batch tell "any open" and "all open" without counting.
    highest = graph.add("ReduceMax", [shifted], f"{name}/highest", keepdims=0)
    lowest = graph.add("ReduceMin", [shifted], f"{name}/lowest", keepdims=0)
    any_open = graph.add("Greater", [highest, threshold], f"{name}/any_open")
    all_open = graph.add("Greater", [lowest, threshold], f"{name}/all_open")

    executed = graph.branch(f"{name}/executed")
    whole = executed.branch("whole")
    whole_output = _residual_sum(whole, block.residual, x, shortcut, "output", name)
    gathered = executed.branch("gathered")
    gathered_output = _gathered_residual(gathered, block, x, shortcut, shifted, name)
    executed_output = executed.add(
        "If",
        [all_open],
        "output",
        then_branch=whole.as_branch(whole_output),
        else_branch=gathered.as_branch(gathered_output),
    )
    skipped = graph.branch(f"{name}/skipped")
    skipped_output = _without_residual(skipped, block, shortcut)
    return graph.add(
        "If",
        [any_open],
        f"{name}/output",
        then_branch=executed.as_branch(executed_output),
        else_branch=skipped.as_branch(skipped_output),
    )


def _gathered_residual(graph: _Graph, block: GatedBlock, x: str, shortcut: str, shifted: str, name: str) -> str:
    """The residual branch on the images with an open gate; the others keep the shortcut."""
    is_open = graph.add("Greater", [shifted, "gate_threshold"], "is_open")  # (N, 1)
    positions = graph.add("NonZero", [is_open], "positions")  # (2, K): row and column of each open gate
    indices = graph.add("Gather", [positions, graph.weight("row_0", np.array(0))], "indices", axis=0)  # (K,)
    inputs = graph.add("Gather", [x, indices], "inputs", axis=0)  # (K, C, H, W)
    shortcuts = inputs if shortcut == x else graph.add("Gather", [shortcut, indices], "shortcuts", axis=0)
    outputs = _residual_sum(graph, block.residual, inputs, shortcuts, "outputs", name)
    rest = _without_residual(graph, block, shortcut)
    rows = graph.add("Unsqueeze", [indices, "axis_1"], "rows")  # (K, 1)
    return graph.add("ScatterND", [rest, rows, outputs], "output")


def _without_residual(graph: _Graph, block: GatedBlock, shortcut: str) -> str:
    """A skipped block's output. Without a projection that is its input: a ReLU or pooled ReLU, so never negative."""
    op = "Identity" if isinstance(block.shortcut, nn.Identity) else "Relu"
    return graph.add(op, [shortcut], "shortcut_alone")


def _residual_sum(graph: _Graph, residual: nn.Module, x: str, shortcut: str, node: str, weight: str) -> str:
    """relu(shortcut + residual(x))."""
    y = _sequential(graph, residual, x, f"{node}/residual", f"{weight}.residual")
    return graph.add("Relu", [graph.add("Add", [y, shortcut], f"{node}/sum")], f"{node}/relu")


def _sequential(graph: _Graph, module: nn.Module, x: str, node: str, weight: str) -> str:
    """The layers of a Sequential; an Identity adds nothing."""
    for position, layer in enumerate(module.children()):
        if isinstance(layer, nn.Conv2d):
            x = _convolution(graph, layer, x, f"{node}/{position}", f"{weight}.{position}")
        elif isinstance(layer, nn.ReLU):
            x = graph.add("Relu", [x], f"{node}/{position}")
        elif isinstance(layer, nn.MaxPool2d):
            x = graph.add(
                "MaxPool",
                [x],
                f"{node}/{position}",
                kernel_shape=[layer.kernel_size] * 2,
                strides=[layer.stride] * 2,
                pads=[layer.padding] * 4,
            )
        else:
            raise TypeError(f"no ONNX form of {type(layer).__name__}")
    return x


def _convolution(graph: _Graph, layer: nn.Conv2d, x: str, node: str, weight: str) -> str:
    assert layer.bias is not None
    inputs = [
        x,
        graph.weight(f"{weight}.weight", _array(layer.weight)),
        graph.weight(f"{weight}.bias", _array(layer.bias)),
    ]
    padding = [int(side) for side in layer.padding]
    return graph.add(
        "Conv",
        inputs,
        node,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=[*padding, *padding],
    )


def _linear(graph: _Graph, layer: nn.Linear, x: str, node: str, weight: str) -> str:
    weights = [
        graph.weight(f"{weight}.weight", _array(layer.weight)),
        graph.weight(f"{weight}.bias", _array(layer.bias)),
    ]
    return graph.add("Gemm", [x, *weights], node, transB=1)


def _mean_pool(graph: _Graph, x: str, node: str) -> str:
    """(N, C, H, W) to (N, C)."""
    return graph.add("ReduceMean", [x, graph.weight("axes_2_3", np.array([2, 3]))], node, keepdims=0)


def _empty_margins(graph: _Graph, pooled: str) -> None:
    """The (N, 0) margins of a network without gates."""
    nothing = graph.weight("nothing", np.array([0]))
    inputs = [pooled, nothing, nothing, graph.weight("axis_1", np.array([1]))]
    graph.nodes.append(helper.make_node("Slice", inputs, [OUTPUT_NAMES[1]], name=OUTPUT_NAMES[1]))


def _array(parameter: Tensor) -> np.ndarray:
    values: np.ndarray = parameter.detach().cpu().numpy()
    return values
