"""The ONNX file of an artifact: the graph of a network or of a cascade, with its inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from artifact.manifest import INPUT_NAMES, OUTPUT_NAMES
from export.graph_builder import GraphBuilder
from export.inference import InferenceCascade, InferenceNetwork
from export.onnx_cascade import add_cascade
from export.onnx_network import add_network


def write_onnx(
    network: InferenceNetwork | InferenceCascade, block_names: Sequence[str], input_size: int, path: Path
) -> None:
    """Build the graph, check it against the ONNX standard, and write it to `path`.

    Args:
        network: to export.
        block_names: of its blocks, in order; nodes and weights are named after them.
        input_size: H and W of the images, in pixels.
    """
    graph = GraphBuilder()
    offset = graph.add("Unsqueeze", [INPUT_NAMES[1], graph.weight("axis_1", np.array([1]))], "offset_column")
    if isinstance(network, InferenceCascade):
        gates = add_cascade(graph, network, block_names, offset)
    else:
        logits, margins = add_network(graph, network, block_names, INPUT_NAMES[0], offset)
        graph.join(margins, logits)
        gates = len(margins)
    model = graph.model(
        {
            INPUT_NAMES[0]: ["batch", 3, input_size, input_size],
            INPUT_NAMES[1]: ["offsets"],
            OUTPUT_NAMES[0]: ["batch", network.classes],
            OUTPUT_NAMES[1]: ["batch", gates],
        }
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
