"""The first convolution, which reads the image, and the pooling of networks for large images.

The image is in float32. Where the processor has dot products of bfloat16, and a filter takes every second pixel, space
goes to depth first: two rows become one, of which each pixel holds two by two of the image's. That has the products of
two neighbours in one step, and a filter that takes every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.buffers import Buffer
from service.engine.runtimes.compiled.convolution import Convolution
from service.engine.runtimes.compiled.layers import Weights
from service.engine.runtimes.compiled.layout import nchw, space_to_depth
from service.engine.runtimes.compiled.program import Program
from service.engine.runtimes.compiled.sliding import convolution_over, max_pool_over
from service.engine.runtimes.window import Window, expect, window_of

_COLOURS = 3
# How far beyond its pixels features may be read: all convolutions but the first have filters of 3 x 3 or 1 x 1.
_BORDER = 1

# Plans a buffer for features, given its use, channels, side and border; None for that of the blocks' features.
Reserve = Callable[[str, int, int, int | None], Buffer]


def emit_stem(
    program: Program, nodes: Sequence[NodeProto], weights: Weights, side: int, reserve: Reserve, bf16_dot: bool
) -> Buffer:
    """Add the stem, and return where the features are that it gives.

    Args:
        program: to add it to.
        nodes: of the portable graph.
        weights: of the convolution.
        side: of the image, in pixels.
        reserve: plans a buffer for features.
        bf16_dot: whether the convolution may be in bfloat16.

    Raises:
        UnknownGraph: there are nodes of another kind.
    """
    first, *others = nodes
    expect(nodes, "Conv Relu", "Conv Relu MaxPool")
    window = window_of(first)
    features = reserve("stem", len(weights.bias), window.over(side), _BORDER)
    if bf16_dot and window.stride == 2 and side % program.lanes == 0:
        _convolve_space_to_depth(program, window, weights, side, features)
    else:
        image = program.buffers.allocate(nchw(_COLOURS, side, window.padding))
        program.load_image(image)
        spec = convolution_over(window, image.layout, features.layout, relu=True, pools=True)
        program.convolve(spec, weights, image, features)
    if len(others) == 1:
        return features
    pooling = window_of(others[-1])
    pooled = reserve("features", len(weights.bias), pooling.over(features.layout.width), None)
    program.max_pool(max_pool_over(pooling, features.layout, pooled.layout), features, pooled)
    return pooled


def _convolve_space_to_depth(program: Program, window: Window, weights: Weights, side: int, features: Buffer) -> None:
    lead = window.padding % 2  # so that the filter begins with the first of two
    kernel, padding = -(-(lead + window.kernel) // 2), (window.padding + lead) // 2
    image = program.buffers.allocate(space_to_depth(_COLOURS, side, padding))
    program.load_image_to_depth(image)
    # Rows of the output may end before the window does: what is left over takes no part.
    spec = Convolution(kernel, 1, padding, image.layout, features.layout, relu=True, pools=True)
    program.convolve(spec, replace(weights, weight=space_to_depth_weights(weights.weight, lead)), image, features)


def space_to_depth_weights(weight: Float32Array, lead: int) -> Float32Array:
    """A filter (K, C, k, k) with steps of 2 as one (K, 4 C, k', k') with steps of 1 after space to depth.

    Args:
        weight: the filter.
        lead: zeros before its first row and column.
    """
    outputs, colours, size, _ = weight.shape
    half = -(-(lead + size) // 2)
    whole = np.pad(weight, ((0, 0), (0, 0), *[(lead, 2 * half - lead - size)] * 2))
    # (K, C, row, down, column, right) to (K, C, down, right, row, column)
    parts = whole.reshape(outputs, colours, half, 2, half, 2).transpose(0, 1, 3, 5, 2, 4)
    return parts.reshape(outputs, 4 * colours, half, half)
