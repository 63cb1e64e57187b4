"""The ONNX file of a network without its gates, made without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifact.preprocessing import Float32Array
from service.engine.runtimes.cuda.network import Convolution, Network
from service.engine.runtimes.window import Window

_COLOURS = 3
_OPSET = 18


class _Writing:
    def __init__(self, half: bool) -> None:
        self._type = np.float16 if half else np.float32
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, values: Float32Array) -> str:
        name = f"weight {len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values.astype(self._type)), name))
        return name

    def node(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"{kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [*inputs], [name], **attributes))
        return name

    def convolve(self, convolution: Convolution, source: str, channels: int | None = None) -> str:
        window, out = convolution.window, convolution.out_channels
        packed = convolution.weight.reshape(window.kernel, window.kernel, -1, out).transpose(3, 2, 0, 1)
        weight, bias = self.weight(packed[:, :channels]), self.weight(convolution.bias)
        return self.node("Conv", source, weight, bias, **_sliding(window))


def ungated_model(network: Network, batch: int, half: bool) -> ModelProto:
    """A model from "images" (N, 3, side, side) to "logits" (N, classes), of one batch size.

    Args:
        network: whose gates are left out.
        batch: N.
        half: whether it is in fp16 throughout; otherwise in fp32.
    """
    writing = _Writing(half)
    features = writing.node("Relu", writing.convolve(network.stem, "images", _COLOURS))
    if network.pool:
        features = writing.node("MaxPool", features, **_sliding(network.pool))
    for block in network.blocks:
        *others, last = block.convolutions
        shortcut = writing.convolve(block.shortcut, features) if block.shortcut else features
        inner = features
        for each in others:
            inner = writing.node("Relu", writing.convolve(each, inner))
        features = writing.node("Relu", writing.node("Add", writing.convolve(last, inner), shortcut))
    mean = writing.node("Flatten", writing.node("GlobalAveragePool", features))
    weight, bias = writing.weight(network.classifier_weight), writing.weight(network.classifier_bias)
    writing.node("Gemm", mean, weight, bias, out="logits", transB=1)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    images = helper.make_tensor_value_info("images", kind, [batch, _COLOURS, network.side, network.side])
    logits = helper.make_tensor_value_info("logits", kind, [batch, len(network.classifier_bias)])
    graph = helper.make_graph(writing.nodes, "ungated", [images], [logits], writing.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def _sliding(window: Window) -> dict[str, Any]:
    return {
        "kernel_shape": [window.kernel] * 2,
        "strides": [window.stride] * 2,
        "pads": [window.padding] * 4,
    }
