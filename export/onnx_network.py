"""The nodes of one network: one If for every gated block, each weight in the file once.

Inside a gated block's If the batch takes one of three ways, so a skipped block is never computed:

    no gate open    -> the shortcut alone
    every gate open -> the residual branch on the whole batch
    some open       -> the images with an open gate are gathered, run through the residual branch and scattered back
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from artifact.manifest import OUTPUT_NAMES
from export.graph_builder import GraphBuilder, array
from export.inference import GatedBlock, InferenceGate, InferenceNetwork, UngatedBlock


def add_network(
    graph: GraphBuilder,
    network: InferenceNetwork,
    block_names: Sequence[str],
    images: str,
    offset: str,
    prefix: str = "",
) -> tuple[str, list[str]]:
    """Add a network.

    Args:
        block_names: of its blocks, in order.
        images: (N, 3, H, W).
        offset: (N, 1) or (1, 1), added to the margins.
        prefix: of the names of its stem and classifier and their weights.

    Returns:
        logits (N, classes), and the (N, 1) margins of each gate.
    """
    x = _sequential(graph, network.stem, images, f"{prefix}stem", f"{prefix}stem")
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
    pooled = _mean_pool(graph, x, f"{prefix}pool")
    return graph.classify(pooled, network.classifier, f"{prefix}{OUTPUT_NAMES[0]}", f"{prefix}classifier"), margins


def _margin(graph: GraphBuilder, gate: InferenceGate, x: str, name: str) -> str:
    """The (N, 1) margins of a gate: one pooling and two matrix products."""
    pooled = _mean_pool(graph, x, f"{name}/gate/pool")
    weights = graph.linear(gate.hidden, f"{name}.gate.hidden")
    hidden = graph.add("Gemm", [pooled, *weights], f"{name}/gate/hidden", transB=1)
    hidden = graph.add("Relu", [hidden], f"{name}/gate/relu")
    weights = graph.linear(gate.margin, f"{name}.gate.margin")
    return graph.add("Gemm", [hidden, *weights], f"{name}/gate/margin", transB=1)


def _gated_residual(graph: GraphBuilder, block: GatedBlock, x: str, shortcut: str, shifted: str, name: str) -> str:
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


def _gathered_residual(graph: GraphBuilder, block: GatedBlock, x: str, shortcut: str, shifted: str, name: str) -> str:
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


def _without_residual(graph: GraphBuilder, block: GatedBlock, shortcut: str) -> str:
    """A skipped block's output. Without a projection that is its input: a ReLU or pooled ReLU, so never negative."""
    op = "Identity" if isinstance(block.shortcut, nn.Identity) else "Relu"
    return graph.add(op, [shortcut], "shortcut_alone")


def _residual_sum(graph: GraphBuilder, residual: nn.Module, x: str, shortcut: str, node: str, weight: str) -> str:
    """relu(shortcut + residual(x))."""
    y = _sequential(graph, residual, x, f"{node}/residual", f"{weight}.residual")
    return graph.add("Relu", [graph.add("Add", [y, shortcut], f"{node}/sum")], f"{node}/relu")


def _sequential(graph: GraphBuilder, module: nn.Module, x: str, node: str, weight: str) -> str:
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


def _convolution(graph: GraphBuilder, layer: nn.Conv2d, x: str, node: str, weight: str) -> str:
    assert layer.bias is not None
    inputs = [
        x,
        graph.weight(f"{weight}.weight", array(layer.weight)),
        graph.weight(f"{weight}.bias", array(layer.bias)),
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


def _mean_pool(graph: GraphBuilder, x: str, node: str) -> str:
    """(N, C, H, W) to (N, C)."""
    return graph.add("ReduceMean", [x, graph.weight("axes_2_3", np.array([2, 3]))], node, keepdims=0)
