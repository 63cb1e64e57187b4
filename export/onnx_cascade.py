"""A cascade in one ONNX graph: each network after the first in the branch of an If, on the images that come to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artifact.manifest import INPUT_NAMES, OUTPUT_NAMES
from export.graph_builder import GraphBuilder
from export.inference import InferenceCascade, InferenceNetwork
from export.onnx_network import add_network


@dataclass(frozen=True)
class _Later:
    """A network that is asked where those before it are not sure.

    Attributes:
        number: of the network, from 2.
        network: itself.
        block_names: of its blocks, in order.
        sure_above: see `artifact.cascade`.
        columns: how many margins there are from its gates on, those of the networks after it included.
    """

    number: int
    network: InferenceNetwork
    block_names: Sequence[str]
    sure_above: float
    columns: int


def add_cascade(graph: GraphBuilder, cascade: InferenceCascade, block_names: Sequence[str], offset: str) -> int:
    """Add a cascade with its outputs; return how many margins it has.

    Args:
        block_names: of the blocks of all networks, in order.
        offset: (N, 1) or (1, 1), added to the margins.
    """
    networks = [network for network in cascade.networks if isinstance(network, InferenceNetwork)]
    names, later, first = iter(block_names), [], []
    for number, network in enumerate(networks, 1):
        own = [next(names) for _ in network.blocks]
        columns = sum(cascade.gates[number - 1 :]) + len(networks) - number
        if number == 1:
            first = own
        else:
            later.append(_Later(number, network, own, cascade.sure_above[number - 1], columns))
    images = INPUT_NAMES[0]
    count = graph.add("Shape", [images], "count", start=0, end=1)  # (1,): N
    shape = graph.add("Concat", [count, graph.weight("one", np.array([1]))], "offset_shape", axis=0)
    offset = graph.add("Expand", [offset, shape], "offsets")  # (N, 1)
    logits, margins = add_network(graph, networks[0], first, images, offset, "network1/")
    graph.weight("gate_threshold", np.array(cascade.gate_threshold, np.float32))
    logits, more = _add_later(graph, later, images, offset, logits)
    graph.add("Identity", [logits], OUTPUT_NAMES[0])
    graph.join([*margins, *more], logits)
    return sum(cascade.gates) + len(later)


def _add_later(
    graph: GraphBuilder, later: Sequence[_Later], images: str, offset: str, logits: str
) -> tuple[str, list[str]]:
    """Add the first of these networks, in the branch of an If, and in that branch the others.

    Returns:
        logits (N, classes), and margins of the gate before it, (N, 1), and of those behind that, in one tensor.
    """
    this, name = later[0], f"network{later[0].number}"
    count = graph.weight("two", np.array([2]))
    two_largest, _ = graph.add_several("TopK", [logits, count], [f"{name}/two_largest", f"{name}/classes"], axis=1)
    parts = [f"{name}/largest", f"{name}/second"]
    largest, second = graph.add_several("Split", [two_largest], parts, axis=1, num_outputs=2)  # (N, 1)
    sure = graph.weight(f"{name}.sure_above", np.array(this.sure_above, np.float32))
    margin = graph.add("Sub", [sure, graph.add("Sub", [largest, second], f"{name}/distance")], f"{name}/margin")
    shifted = graph.add("Add", [margin, offset], f"{name}/shifted")
    highest = graph.add("ReduceMax", [shifted], f"{name}/highest", keepdims=0)
    any_open = graph.add("Greater", [highest, "gate_threshold"], f"{name}/any_open")

    executed, skipped = graph.branch(f"{name}/executed"), graph.branch(f"{name}/skipped")
    outputs = [_together(executed, later, images, offset, logits, shifted)]
    outputs.append((skipped.add("Identity", [logits], "logits"), _no_margins(skipped, logits, this.columns)))
    branches = [
        branch.as_branch(*(output for output in pair if output))
        for branch, pair in zip((executed, skipped), outputs, strict=True)
    ]
    names = [f"{name}/all_logits", f"{name}/own_margins"] if this.columns else [f"{name}/all_logits"]
    told = graph.add_several("If", [any_open], names, then_branch=branches[0], else_branch=branches[1])
    return told[0], [margin, *told[1:]]


def _together(
    graph: GraphBuilder, later: Sequence[_Later], images: str, offset: str, logits: str, shifted: str
) -> tuple[str, str | None]:
    """Logits and margins where some images come to a network: these are gathered, and what it says scattered."""
    this, name = later[0], f"network{later[0].number}"
    is_open = graph.add("Greater", [shifted, "gate_threshold"], "is_open")  # (N, 1)
    positions = graph.add("NonZero", [is_open], "positions")  # (2, K): row and column of each open gate
    indices = graph.add("Gather", [positions, graph.weight("row_0", np.array(0))], "indices", axis=0)  # (K,)
    rows = graph.add("Unsqueeze", [indices, "axis_1"], "rows")  # (K, 1)
    chosen_images = graph.add("Gather", [images, indices], "images", axis=0)
    chosen_offset = graph.add("Gather", [offset, indices], "offset", axis=0)
    before = graph.add("Gather", [logits, indices], "before", axis=0)
    said, margins = add_network(graph, this.network, this.block_names, chosen_images, chosen_offset, f"{name}/")
    mean = _mean_probability(graph, before, said, this.number)
    if later[1:]:
        mean, more = _add_later(graph, later[1:], chosen_images, chosen_offset, mean)
        margins += more
    scattered = graph.add("ScatterND", [logits, rows, mean], "all_logits")
    if not margins:
        return scattered, None
    own = graph.add("Concat", margins, "margins", axis=1)
    nothing = _no_margins(graph, logits, this.columns)
    assert nothing is not None
    return scattered, graph.add("ScatterND", [nothing, rows, own], "all_margins")


def _mean_probability(graph: GraphBuilder, before: str, said: str, number: int) -> str:
    """Logarithm of the mean of the probabilities of `number` networks, from that of those before and the last's."""
    share = graph.weight(f"log_{number - 1}", np.array(math.log(number - 1), np.float32))
    a = graph.add("Add", [graph.add("LogSoftmax", [before], "before/log", axis=1), share], "before/sum")
    b = graph.add("LogSoftmax", [said], "said/log", axis=1)
    # log(exp(a) + exp(b)) = max(a, b) + log(1 + exp(-|a - b|)), of which nothing overflows.
    distance = graph.add("Neg", [graph.add("Abs", [graph.add("Sub", [a, b], "difference")], "apart")], "distance")
    rest = graph.add("Softplus", [distance], "rest")
    total = graph.add("Add", [graph.add("Max", [a, b], "larger"), rest], "total")
    return graph.add("Sub", [total, graph.weight(f"log_{number}", np.array(math.log(number), np.float32))], "mean")


def _no_margins(graph: GraphBuilder, logits: str, columns: int) -> str | None:
    """Zeros (N, columns) for gates that are not reached; None where there are no such gates."""
    if not columns:
        return None
    count = graph.add("Shape", [logits], "count", start=0, end=1)
    width = graph.weight(f"columns_{columns}", np.array([columns]))
    shape = graph.add("Concat", [count, width], "margins_shape", axis=0)
    return graph.add("ConstantOfShape", [shape], "no_margins")
