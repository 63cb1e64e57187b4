"""The weights of a network's convolutions, for features of one element type or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, numpy_helper

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.int8_graph import Int8Convolution, Int8Graph


@dataclass(frozen=True)
class Weights:
    """Of a convolution.

    Attributes:
        weight: (K, C, kh, kw) float32, or int8 where the input is in 8 bits.
        bias: (K,).
        scale: (K,), what 1 stands for in integer sums.
    """

    weight: npt.NDArray[Any]
    bias: Float32Array
    scale: Float32Array | None = None


class Layers(Protocol):
    """Where the weights come from.

    Attributes:
        element_type: of features.
    """

    element_type: ElementType

    def unit_before(self, block: str) -> float:
        """What 1 in a block's input stands for."""

    def unit_after(self, block: str) -> float:
        """What 1 in a block's output stands for."""

    def stem(self, node: NodeProto, first_block: str) -> Weights:
        """Of the convolution that reads the image."""

    def shortcut(self, node: NodeProto, block: str) -> Weights:
        """Of a block's projection."""

    def residual(self, node: NodeProto, block: str, number: int, last: bool) -> Weights:
        """Of a convolution in a block's residual branch, counted from 0."""


class FloatLayers:
    """As the portable graph has them.

    Args:
        weights: of the graph.
        element_type: of features, and so of weights.
    """

    def __init__(self, weights: Mapping[str, TensorProto], element_type: ElementType) -> None:
        self.element_type = element_type
        self._weights = weights

    def unit_before(self, _block: str) -> float:
        """See `Layers`."""
        return 1.0

    def unit_after(self, _block: str) -> float:
        """See `Layers`."""
        return 1.0

    def stem(self, node: NodeProto, _first_block: str) -> Weights:
        """See `Layers`."""
        return self._of(node)

    def shortcut(self, node: NodeProto, _block: str) -> Weights:
        """See `Layers`."""
        return self._of(node)

    def residual(self, node: NodeProto, _block: str, _number: int, _last: bool) -> Weights:
        """See `Layers`."""
        return self._of(node)

    def _of(self, node: NodeProto) -> Weights:
        return Weights(*(numpy_helper.to_array(self._weights[name]) for name in node.input[1:3]))


class Int8Layers:
    """As the int8 graph has them, but for the stem's, whose input is no multiple of anything.

    Args:
        weights: of the portable graph.
        graph: the int8 graph.
    """

    element_type = ElementType.UINT8

    def __init__(self, weights: Mapping[str, TensorProto], graph: Int8Graph) -> None:
        self._float = FloatLayers(weights, ElementType.FLOAT32)
        self._graph = graph

    def unit_before(self, block: str) -> float:
        """See `Layers`."""
        return self._convolution(block, 0).input_scale

    def unit_after(self, block: str) -> float:
        """See `Layers`."""
        return self._graph.output_scales[block]

    def stem(self, node: NodeProto, first_block: str) -> Weights:
        """See `Layers`."""
        whole, unit = self._float.stem(node, first_block), np.float32(self.unit_before(first_block))
        return Weights(whole.weight / unit, whole.bias / unit)

    def shortcut(self, _node: NodeProto, block: str) -> Weights:
        """See `Layers`."""
        return _in_units(self._graph.convolutions[f"{block}/shortcut"], self.unit_after(block))

    def residual(self, _node: NodeProto, block: str, number: int, last: bool) -> Weights:
        """See `Layers`."""
        unit = self.unit_after(block) if last else self._convolution(block, number + 1).input_scale
        return _in_units(self._convolution(block, number), unit)

    def _convolution(self, block: str, number: int) -> Int8Convolution:
        return self._graph.convolutions[f"{block}/residual/{number}"]


def _in_units(convolution: Int8Convolution, unit: float) -> Weights:
    """A convolution with an output in which 1 stands for so much."""
    scale = convolution.weight_scales * np.float32(convolution.input_scale / unit)
    return Weights(convolution.weights, convolution.bias.astype(np.float32) * scale, scale)
