"""Ways to damage an exported graph so that it still runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, helper, numpy_helper

from artifact.manifest import ONNX_NAME


@contextmanager
def edited(folder: Path) -> Iterator[GraphProto]:
    """The graph of the artifact in `folder`, written back at the end."""
    model = onnx.load(folder / ONNX_NAME)
    yield model.graph
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / ONNX_NAME)


def change_weight(graph: GraphProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace a weight by `change` of it."""
    weight = next(tensor for tensor in graph.initializer if tensor.name == name)
    values = change(numpy_helper.to_array(weight).copy())
    weight.CopyFrom(numpy_helper.from_array(values, name))


def branch(node: NodeProto, name: str) -> GraphProto:
    """`then_branch` or `else_branch` of an If."""
    return _attribute(node, name).g


def swap_branches(node: NodeProto) -> None:
    """What ran with an open gate now runs with a closed one, and the other way round."""
    then_branch, else_branch = _attribute(node, "then_branch"), _attribute(node, "else_branch")
    then_branch.name, else_branch.name = "else_branch", "then_branch"


def gated_block(graph: GraphProto, block: str) -> NodeProto:
    """The If of a block."""
    return next(node for node in graph.node if node.output[0] == f"{block}/output")


def compute_always(graph: GraphProto, block: str, keep_if: bool) -> None:
    """Compute a block's residual branch on every image and only then look at its gate; no answer changes.

    Args:
        keep_if: whether an If of the same name chooses between the two finished results.
    """
    position = next(index for index, node in enumerate(graph.node) if node.output[0] == f"{block}/output")
    node = graph.node[position]
    inner_if = branch(node, "then_branch").node[0]
    whole, skipped = branch(inner_if, "then_branch"), branch(node, "else_branch")
    executed_name, skipped_name = whole.output[0].name, skipped.output[0].name
    choice = [
        helper.make_node("Greater", [f"{block}/shifted", "gate_threshold"], [f"{block}/is_open"]),
        helper.make_node("Unsqueeze", [f"{block}/is_open", "axes_2_3"], [f"{block}/mask"]),
        helper.make_node("Where", [f"{block}/mask", executed_name, skipped_name], [f"{block}/chosen"]),
    ]
    end = helper.make_node("Identity", [f"{block}/chosen"], [f"{block}/output"])
    if keep_if:
        end = helper.make_node(
            "If",
            [f"{block}/any_open"],
            [f"{block}/output"],
            then_branch=_passing_on(f"{block}/chosen", f"{block}/then"),
            else_branch=_passing_on(skipped_name, f"{block}/else"),
        )
    nodes = [*graph.node[:position], *whole.node, *skipped.node, *choice, end, *graph.node[position + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)


def compute_closed_ones_of_a_mixed_batch(graph: GraphProto, block: str) -> None:
    """Where some gates of a batch are open, compute the residual branch on all its images, then choose."""
    executed = branch(gated_block(graph, block), "then_branch")
    inner_if = executed.node[0]
    whole, gathered = branch(inner_if, "then_branch"), branch(inner_if, "else_branch")
    rest = next(node for node in gathered.node if node.output[0].endswith("shortcut_alone"))
    copy = GraphProto()
    copy.CopyFrom(whole)
    for node in copy.node:
        node.name += "/again"
        node.output[0] += "/again"
        for index, name in enumerate(node.input):
            if name.startswith(whole.name):
                node.input[index] = f"{name}/again"
    prefix = gathered.name
    nodes = [
        *copy.node,
        rest,
        helper.make_node("Greater", [f"{block}/shifted", "gate_threshold"], [f"{prefix}/open"]),
        helper.make_node("Unsqueeze", [f"{prefix}/open", "axes_2_3"], [f"{prefix}/mask"]),
        helper.make_node(
            "Where", [f"{prefix}/mask", copy.node[-1].output[0], rest.output[0]], [gathered.output[0].name]
        ),
    ]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del gathered.node[:]
    gathered.node.extend(kept)


def _passing_on(value: str, name: str) -> GraphProto:
    output = helper.make_tensor_value_info(f"{name}/output", onnx.TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Identity", [value], [f"{name}/output"])], name, [], [output])


def _attribute(node: NodeProto, name: str) -> AttributeProto:
    return next(attribute for attribute in node.attribute if attribute.name == name)
