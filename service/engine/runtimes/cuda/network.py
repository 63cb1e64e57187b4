"""A gated network as the kernels take it: weights packed by output channel, sizes in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, numpy_helper

from artifact.preprocessing import Float32Array
from service.engine.runtimes.portable_graph import GateWeights, PortableBlock, PortableGraph, UnknownGraph
from service.engine.runtimes.window import Window, expect, window_of

# Tiles of matrix products are at least so wide.
LEAST_CHANNELS = 16


@dataclass(frozen=True)
class Convolution:
    """A convolution over square features, with batch norm folded in.

    Attributes:
        window: that slides over the input.
        side: H and W of the input, in pixels.
        weight: (kh * kw * C, K): rows by place in the window, then by input channel.
        bias: (K,).
    """

    window: Window
    side: int
    weight: Float32Array
    bias: Float32Array

    @property
    def out_side(self) -> int:
        """H and W of the output, in pixels."""
        return self.window.over(self.side)

    @property
    def channels(self) -> int:
        """Of the input, C."""
        return len(self.weight) // self.window.kernel**2

    @property
    def out_channels(self) -> int:
        """Of the output, K."""
        return len(self.bias)


@dataclass(frozen=True)
class Gate:
    """Weights of a gate (Veit & Belongie, section 3.2).

    Attributes:
        hidden_weight: (hidden, C), where `hidden` is a power of two.
        hidden_bias: (hidden,).
        margin_weight: (hidden,), of the execute logit above the skip logit.
        margin_bias: (1,).
    """

    hidden_weight: Float32Array
    hidden_bias: Float32Array
    margin_weight: Float32Array
    margin_bias: Float32Array


@dataclass(frozen=True)
class Block:
    """A residual block.

    Attributes:
        gate: None where it always runs.
        shortcut: its projection; None where the input itself is added.
        convolutions: of the residual branch, in order.
    """

    gate: Gate | None
    shortcut: Convolution | None
    convolutions: tuple[Convolution, ...]


@dataclass(frozen=True)
class Network:
    """A whole network.

    Attributes:
        side: H and W of its images, in pixels.
        stem: its first convolution, whose input has `image_channels`.
        pool: what slides over the stem's output for the largest values; None where nothing does.
        blocks: in order.
        classifier_weight: (classes, C).
        classifier_bias: (classes,).
    """

    side: int
    stem: Convolution
    pool: Window | None
    blocks: tuple[Block, ...]
    classifier_weight: Float32Array
    classifier_bias: Float32Array

    @property
    def gates(self) -> int:
        """How many blocks have one."""
        return sum(block.gate is not None for block in self.blocks)

    @property
    def features_side(self) -> int:
        """H and W of what the first block gets, in pixels."""
        side = self.stem.out_side
        return self.pool.over(side) if self.pool else side


def read_network(graph: PortableGraph, image_channels: int) -> Network:
    """The network of a portable graph.

    Args:
        graph: of the artifact.
        image_channels: that images are to have on the device, of which those after the third are zeros.

    Raises:
        UnknownGraph: it has parts that no kernel is for.
    """
    try:
        return _Reading(graph).network(image_channels)
    except UnknownGraph:
        raise
    except (LookupError, ValueError) as error:  # a missing weight or attribute, and shapes that fit no layer
        raise UnknownGraph(f"its parts do not fit together: {error!r}") from error


class _Reading:
    def __init__(self, graph: PortableGraph) -> None:
        self._graph = graph

    def network(self, image_channels: int) -> Network:
        stem, side = self._graph.stem, self._graph.input_size
        expect(stem, "Conv Relu", "Conv Relu MaxPool")
        first = self._convolution(stem[0], side, image_channels)
        pool = window_of(stem[2]) if len(stem) > 2 else None
        side = pool.over(first.out_side) if pool else first.out_side
        blocks = []
        for block in self._graph.blocks:
            blocks.append(self._block(block, side))
            side = blocks[-1].convolutions[-1].out_side
        expect(self._graph.tail, "ReduceMean Gemm")
        weight, bias = (self._weight(name) for name in self._graph.tail[1].input[1:3])
        return Network(self._graph.input_size, first, pool, tuple(blocks), weight, bias)

    def _block(self, block: PortableBlock, side: int) -> Block:
        shortcut = None
        if block.shortcut_nodes:
            expect(block.shortcut_nodes, "Conv")
            shortcut = self._convolution(block.shortcut_nodes[0], side)
        expect(block.residual_nodes, "Conv Relu Conv Add Relu", "Conv Relu Conv Relu Conv Add Relu")
        convolutions: list[Convolution] = []
        for node in block.residual_nodes:
            if node.op_type == "Conv":
                convolutions.append(self._convolution(node, convolutions[-1].out_side if convolutions else side))
        return Block(self._gate(block.gate) if block.gate else None, shortcut, tuple(convolutions))

    def _gate(self, names: GateWeights) -> Gate:
        weight, bias = self._weight(names.hidden_weight), self._weight(names.hidden_bias)
        missing = (1 << (len(bias) - 1).bit_length()) - len(bias)  # units that are always 0 make it a power of two
        margin_weight = self._weight(names.margin_weight).reshape(-1)
        return Gate(
            np.pad(weight, ((0, missing), (0, 0))),
            np.pad(bias, (0, missing)),
            np.pad(margin_weight, (0, missing)),
            self._weight(names.margin_bias).reshape(-1),
        )

    def _convolution(self, node: NodeProto, side: int, channels: int | None = None) -> Convolution:
        weight, bias = (self._weight(name) for name in node.input[1:3])
        missing = 0 if channels is None else channels - weight.shape[1]
        weight = np.pad(weight, ((0, 0), (0, missing), (0, 0), (0, 0)))
        _require_whole_tiles(node.name, [len(bias)] if channels else [len(bias), weight.shape[1]])
        packed = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(-1, len(bias))
        return Convolution(window_of(node), side, packed, bias)

    def _weight(self, name: str) -> Float32Array:
        array: Float32Array = numpy_helper.to_array(self._graph.weights[name])
        return array


def _require_whole_tiles(name: str, channels: Sequence[int]) -> None:
    """Triton's blocks have sizes that are powers of two."""
    for count in channels:
        if count < LEAST_CHANNELS or count & (count - 1):
            raise UnknownGraph(f"{name} has {count} channels, which is no power of two from {LEAST_CHANNELS}")
