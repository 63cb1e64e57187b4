"""The int8 ONNX file read back: weights and scales of its convolutions, by the names that the export gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, numpy_helper

from artifact.preprocessing import Float32Array
from service.engine.runtimes.portable_graph import UnknownGraph

_WEIGHT, _SUM = ".weight", "/sum"


@dataclass(frozen=True)
class Int8Convolution:
    """A convolution in whole numbers; its input has no zero point.

    Attributes:
        weights: (K, C, kh, kw).
        weight_scales: (K,), what 1 stands for in each output channel's weights.
        bias: (K,), in units of a weight's scale times the input's.
        input_scale: what 1 in its input stands for.
    """

    weights: npt.NDArray[np.int8]
    weight_scales: Float32Array
    bias: npt.NDArray[np.int32]
    input_scale: float


@dataclass(frozen=True)
class Int8Graph:
    """The parts of the file.

    Attributes:
        convolutions: of blocks, as "BLOCK/residual/NUMBER" and "BLOCK/shortcut".
        output_scales: what 1 in a block's output stands for, by block.
    """

    convolutions: Mapping[str, Int8Convolution]
    output_scales: Mapping[str, float]


def read_int8_graph(path: Path) -> Int8Graph:
    """Take an artifact's int8 file apart.

    Raises:
        UnknownGraph: it is not built as the export builds it.
    """
    try:
        return _taken_apart(onnx.load(str(path)).graph)
    except Exception as error:  # protobuf's on other files, and missing weights
        raise UnknownGraph(f"{path.name} cannot be taken apart: {error!r}") from error


def _taken_apart(graph: GraphProto) -> Int8Graph:
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def array(node: NodeProto, number: int) -> npt.NDArray[Any]:
        return numpy_helper.to_array(weights[node.input[number]])

    def scale(node: NodeProto, number: int) -> float:
        found = float(array(node, number))
        if not 0 < found < float("inf"):
            raise ValueError(f"{node.name} has a scale of {found}")
        return found

    convolutions, output_scales = {}, {}
    for node in _nodes(graph):
        # The inputs of both are a tensor, its scale and its zero point, three times, and for a convolution the bias.
        if node.op_type == "QLinearConv" and not array(node, 2).any():
            convolutions[node.input[3].removesuffix(_WEIGHT)] = Int8Convolution(
                array(node, 3), array(node, 4), array(node, 8), scale(node, 1)
            )
        elif node.op_type == "QLinearAdd":
            output_scales[node.name.removesuffix(_SUM).split("/")[-1]] = scale(node, 6)
    return Int8Graph(convolutions, output_scales)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, those in branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
