"""The int8 ONNX file of an artifact: one image at a time, in ONNX Runtime's own operators.

Features are 8 bits without sign, (1, H, W, C), from the stem to the classifier; weights are 8 bits with sign and have a
scale for each output channel. A gated block is one If: open, it convolves and adds; closed, it hands its input on, or
projects it. A ReLU costs nothing, since a tensor that cannot hold numbers below 0 clamps them. Gates and classifier are
in float32; what they read, the mean over all pixels, is exact: a product with ones, scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from torch import nn

from artifact.manifest import INPUT_NAMES, OUTPUT_NAMES
from export.calibration import (
    IMAGES,
    STEM,
    Quantisation,
    convolutions,
    output_name,
    residual_name,
    shortcut_name,
)
from export.graph_builder import GraphBuilder, array
from export.inference import GatedBlock, InferenceGate, InferenceNetwork, UngatedBlock

# ONNX Runtime's operators beyond the standard: those that work on (N, H, W, C) and those that are fused.
_CONTRIB = "com.microsoft"
_LARGEST_WEIGHT, _LARGEST_BIAS = 127, 2**30


@dataclass(frozen=True)
class _Features:
    """An 8-bit tensor (1, side, side, channels)."""

    tensor: str
    quantisation: Quantisation
    side: int
    channels: int


def write_int8(
    network: InferenceNetwork,
    block_names: Sequence[str],
    input_size: int,
    quantisations: Mapping[str, Quantisation],
    path: Path,
) -> None:
    """Build the graph, check it as far as the standard knows it, and write it to `path`.

    A gate is open where margin > gate_threshold - gate_offset.

    Args:
        network: to export.
        block_names: of its blocks, in order; nodes and weights are named after them.
        input_size: H and W of the images, in pixels.
        quantisations: of its tensors, as `calibrate` finds them.
    """
    graph = GraphBuilder()
    blocks = _Blocks(graph, quantisations)
    x = _stem(graph, network.stem, input_size, quantisations)
    for name, block in zip(block_names, network.blocks, strict=True):
        assert isinstance(block, GatedBlock | UngatedBlock)
        x = blocks.gated(block, x, name) if isinstance(block, GatedBlock) else blocks.executed(graph, block, x, name)
    graph.join(blocks.margins, graph.classify(_mean_pool(graph, x, "pool"), network.classifier))
    model = graph.model(
        {
            INPUT_NAMES[0]: [1, 3, input_size, input_size],
            INPUT_NAMES[1]: [1],
            OUTPUT_NAMES[0]: [1, network.classifier.out_features],
            OUTPUT_NAMES[1]: [1, len(blocks.margins)],
        },
        [_CONTRIB],
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


class _Blocks:
    """Adds blocks to the main graph.

    Attributes:
        margins: of the gates so far, (1, 1) each.
    """

    def __init__(self, graph: GraphBuilder, quantisations: Mapping[str, Quantisation]) -> None:
        self.margins: list[str] = []
        self._graph = graph
        self._quantisations = quantisations

    def gated(self, block: GatedBlock, x: _Features, name: str) -> _Features:
        """A block in the branch of an If; the other branch has what remains without its residual."""
        threshold = self._graph.weight("gate_threshold", np.array([block.gate_threshold], np.float32))
        if not self.margins:
            self._graph.add("Sub", [threshold, INPUT_NAMES[1]], "limit")
        self.margins.append(_margin(self._graph, block.gate, x, name))
        is_open = self._graph.add("Greater", [self.margins[-1], "limit"], f"{name}/open")
        executed, skipped = self._graph.branch("executed"), self._graph.branch("skipped")
        output = self.executed(executed, block, x, name)
        skipped_output = self._skipped(skipped, block, x, name)
        tensor = self._graph.add(
            "If",
            [is_open],
            output_name(name),
            then_branch=executed.as_branch(output.tensor, element_type=TensorProto.UINT8),
            else_branch=skipped.as_branch(skipped_output, element_type=TensorProto.UINT8),
        )
        return _Features(tensor, output.quantisation, output.side, output.channels)

    def executed(self, graph: GraphBuilder, block: GatedBlock | UngatedBlock, x: _Features, name: str) -> _Features:
        """relu(shortcut + residual(x))."""
        y = x
        for number, layer in enumerate(convolutions(block.residual)):
            quantisation = self._quantisations[residual_name(name, number)]
            y = _convolution(graph, layer, y, quantisation, quantisation.name)
        shortcut = x
        for layer in convolutions(block.shortcut):
            shortcut = _convolution(graph, layer, x, self._quantisations[shortcut_name(name)], shortcut_name(name))
        output = self._quantisations[output_name(name)]
        inputs = [y.tensor, *_scale(graph, y.quantisation), shortcut.tensor, *_scale(graph, shortcut.quantisation)]
        node = f"{name}/sum"
        tensor = graph.add("QLinearAdd", [*inputs, *_scale(graph, output)], node, domain=_CONTRIB)
        return _Features(tensor, output, y.side, y.channels)

    def _skipped(self, graph: GraphBuilder, block: GatedBlock, x: _Features, name: str) -> str:
        """relu(shortcut); without a projection that is the input, which is kept as the output is."""
        for layer in convolutions(block.shortcut):
            return _convolution(graph, layer, x, self._quantisations[output_name(name)], shortcut_name(name)).tensor
        return graph.add("Identity", [x.tensor], f"{name}/shortcut_alone")


def _stem(graph: GraphBuilder, stem: nn.Module, side: int, quantisations: Mapping[str, Quantisation]) -> _Features:
    """From images (1, 3, H, W) in float32 to features; pooling the highest values keeps their scale."""
    quantised = graph.add("QuantizeLinear", [INPUT_NAMES[0], *_scale(graph, quantisations[IMAGES])], "images/quantised")
    pixels = graph.add("Transpose", [quantised], "images/transposed", perm=[0, 2, 3, 1])
    x = _Features(pixels, quantisations[IMAGES], side, 3)
    for position, layer in enumerate(stem.children()):
        if isinstance(layer, nn.Conv2d):
            x = _convolution(graph, layer, x, quantisations[STEM], f"stem/{position}")
        elif isinstance(layer, nn.MaxPool2d):
            sides = (layer.kernel_size, layer.stride, layer.padding)
            kernel, stride, padding = (side if isinstance(side, int) else side[0] for side in sides)
            tensor = graph.add(
                "NhwcMaxPool",
                [x.tensor],
                f"stem/{position}",
                domain=_CONTRIB,
                kernel_shape=[kernel] * 2,
                strides=[stride] * 2,
                pads=[padding] * 4,
            )
            x = _Features(tensor, x.quantisation, _side(x.side, kernel, stride, padding), x.channels)
    return x


def _convolution(graph: GraphBuilder, layer: nn.Conv2d, x: _Features, output: Quantisation, node: str) -> _Features:
    """A convolution whose result is kept as `output`."""
    assert layer.bias is not None
    (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, [int(side) for side in layer.padding]
    weights, scales, bias = quantised_weights(array(layer.weight), array(layer.bias), x.quantisation.scale)
    weight_inputs = [
        graph.weight(f"{node}.weight", weights),
        graph.weight(f"{node}.weight_scale", scales),
        graph.weight(f"{node}.weight_zero_point", np.zeros(len(scales), np.int8)),
    ]
    inputs = [x.tensor, *_scale(graph, x.quantisation), *weight_inputs, *_scale(graph, output)]
    tensor = graph.add(
        "QLinearConv",
        [*inputs, graph.weight(f"{node}.bias", bias)],
        node,
        domain=_CONTRIB,
        channels_last=1,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[padding] * 4,
    )
    return _Features(tensor, output, _side(x.side, kernel, stride, padding), len(scales))


def quantised_weights(
    weights: np.ndarray, bias: np.ndarray, input_scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A convolution in whole numbers.

    Args:
        weights: (M, C, K, K) float32.
        bias: (M,) float32.
        input_scale: of the tensor it reads.

    Returns:
        weights as int8, the scale of each output channel's as float32 (M,), and the bias as int32 in units of
        input_scale * scale.
    """
    largest = np.abs(weights).max(axis=(1, 2, 3)).astype(np.float64)
    # A channel of next to no weights needs a scale that its bias fits into, too.
    scales = np.maximum(largest / _LARGEST_WEIGHT, np.abs(bias) / (input_scale * _LARGEST_BIAS))
    scales = np.where(scales == 0, 1, scales).astype(np.float32)
    quantised = np.rint(weights / scales[:, None, None, None]).clip(-_LARGEST_WEIGHT, _LARGEST_WEIGHT)
    return quantised.astype(np.int8), scales, np.rint(bias / (np.float64(input_scale) * scales)).astype(np.int32)


def _margin(graph: GraphBuilder, gate: InferenceGate, x: _Features, name: str) -> str:
    """The (1, 1) margin of a gate."""
    pooled = _mean_pool(graph, x, f"{name}/gate/pool")
    inputs = [pooled, *graph.linear(gate.hidden, f"{name}.gate.hidden")]
    hidden = graph.add("FusedGemm", inputs, f"{name}/gate/hidden", domain=_CONTRIB, transB=1, activation="Relu")
    return graph.add(
        "Gemm", [hidden, *graph.linear(gate.margin, f"{name}.gate.margin")], f"{name}/gate/margin", transB=1
    )


def _mean_pool(graph: GraphBuilder, x: _Features, node: str) -> str:
    """(1, H, W, C) to (1, C) in float32; x has the zero point 0."""
    pixels = x.side**2
    shape = graph.weight(f"shape_{pixels}_{x.channels}", np.array([pixels, x.channels]))
    rows = graph.add("Reshape", [x.tensor, shape], f"{node}/rows")  # (H * W, C)
    ones = graph.weight(f"ones_{pixels}", np.ones((1, pixels), np.uint8))
    share = graph.weight(f"share_{pixels}", np.array(1 / pixels, np.float32))
    return graph.add(
        "MatMulIntegerToFloat", [ones, rows, share, _scale(graph, x.quantisation)[0]], node, domain=_CONTRIB
    )


def _scale(graph: GraphBuilder, quantisation: Quantisation) -> list[str]:
    """Names of the scale and the zero point, as operators take them."""
    return [
        graph.weight(f"{quantisation.name}.scale", np.array(quantisation.scale, np.float32)),
        graph.weight(f"{quantisation.name}.zero_point", np.array(quantisation.zero_point, np.uint8)),
    ]


def _side(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1
