"""Lowering: from the parts of the portable graph to the program of the whole network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import numpy_helper

from artifact.preprocessing import Float32Array
from service.engine.runtimes.compiled.buffers import Buffer
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layers import Layers, Weights
from service.engine.runtimes.compiled.layout import nchwc
from service.engine.runtimes.compiled.processor import VectorUnit
from service.engine.runtimes.compiled.program import Program
from service.engine.runtimes.compiled.sliding import convolution_over
from service.engine.runtimes.compiled.stem import emit_stem
from service.engine.runtimes.portable_graph import GateWeights, PortableBlock, PortableGraph, UnknownGraph
from service.engine.runtimes.window import expect, window_of


def lower_network(graph: PortableGraph, gate_threshold: float, vectors: VectorUnit, layers: Layers) -> Program:
    """The program for one image at a time.

    A gate is open where margin + offset > gate_threshold.

    Args:
        graph: the network.
        gate_threshold: of its gates.
        vectors: of the processor that is to run it.
        layers: its weights, which say of what type features are.

    Raises:
        UnknownGraph: the network has parts that no kernel here is for.
    """
    try:
        return _Lowering(graph, gate_threshold, vectors, layers).program()
    except UnknownGraph:
        raise
    except (LookupError, ValueError) as error:  # a missing weight or attribute, and shapes that fit no layer
        raise UnknownGraph(f"its parts do not fit together: {error!r}") from error


class _Lowering:
    def __init__(self, graph: PortableGraph, gate_threshold: float, vectors: VectorUnit, layers: Layers) -> None:
        self._graph = graph
        self._layers = layers
        self._bf16_dot = vectors.bf16_dot and layers.element_type is not ElementType.FLOAT32
        self._threshold = gate_threshold
        self._way = vectors.caches.l1_way
        self._program = Program(vectors, self._lanes(vectors.lanes))
        self._gates = 0

    def program(self) -> Program:
        """The whole program."""
        first = self._graph.blocks[0].name
        weights, unit = self._layers.stem(self._graph.stem[0], first), self._layers.unit_before(first)

        def reserve(use: str, channels: int, side: int, border: int | None) -> Buffer:
            return self._features(use, channels, side, unit, border)

        stem, side = self._graph.stem, self._graph.input_size
        features = emit_stem(self._program, stem, weights, side, reserve, self._bf16_dot)
        for block in self._graph.blocks:
            features = self._block(block, features)
        self._tail(features)
        return self._program

    def _lanes(self, widest: int) -> int:
        """Channels in a block: as many as a vector has lanes, or fewer where channel counts are no multiple of that."""
        convolutions = [*self._graph.stem[:1]]
        for block in self._graph.blocks:
            convolutions += [node for node in (*block.shortcut_nodes, *block.residual_nodes) if node.op_type == "Conv"]
        channels = [len(self._weight(node.input[2])) for node in convolutions]
        # There are dot products of several elements for the widest vectors only.
        choice = (widest, widest // 2, widest // 4) if self._layers.element_type is ElementType.FLOAT32 else (widest,)
        for lanes in choice:
            if lanes > 1 and all(count % lanes == 0 for count in channels):
                return lanes
        raise UnknownGraph("there are layers whose channels fill no vectors")

    def _block(self, block: PortableBlock, features: Buffer) -> Buffer:
        """A block with its gate; its output overwrites its input where the shortcut is the identity."""
        if block.shortcut_nodes:
            expect(block.shortcut_nodes, "Conv")
            node = block.shortcut_nodes[0]
            window, weights = window_of(node), self._layers.shortcut(node, block.name)
            side, unit = window.over(features.layout.width), self._layers.unit_after(block.name)
            output = self._features("features", len(weights.bias), side, unit)
            if output.offset == features.offset:  # a stride has nothing to leave out of a single pixel
                output = self._features("other features", len(weights.bias), side, unit)
            # Eight bits without a sign are for what is a ReLU's already.
            signed = output
            if output.layout.element_type is ElementType.UINT8:
                element_type = ElementType.BFLOAT16 if self._bf16_dot else ElementType.FLOAT32
                signed = self._buffer("projected", len(weights.bias), side, 0, element_type)

            def opened() -> None:
                self._program.convolve(
                    convolution_over(window, features.layout, signed.layout), weights, features, signed
                )
                self._residual(block, features, signed, output)

            def closed() -> None:
                spec = convolution_over(window, features.layout, output.layout, relu=True, pools=True)
                self._program.convolve(spec, weights, features, output)

        else:
            output = features

            def opened() -> None:
                self._residual(block, features, features, output)

            def closed() -> None:
                """The features stay as they are: they are a ReLU's already."""

        if block.gate is None:
            opened()
        else:
            self._program.branch(self._margin(block.gate, features), self._gates, self._threshold, opened, closed)
            self._gates += 1
        return output

    def _residual(self, block: PortableBlock, features: Buffer, shortcut: Buffer, output: Buffer) -> None:
        """The convolutions of a block; the last adds the shortcut."""
        expect(block.residual_nodes, "Conv Relu Conv Add Relu", "Conv Relu Conv Relu Conv Add Relu")
        nodes = [node for node in block.residual_nodes if node.op_type == "Conv"]
        windows = [window_of(node) for node in nodes]
        for number, (node, window) in enumerate(zip(nodes, windows, strict=True)):
            last = number == len(nodes) - 1
            weights = self._layers.residual(node, block.name, number, last)
            if last:
                source, residual = features.layout, shortcut.layout
                spec = convolution_over(window, source, output.layout, relu=True, residual=residual, pools=True)
                self._program.convolve(spec, weights, features, output, shortcut)
            else:
                side, border = window.over(features.layout.width), windows[number + 1].padding
                target = self._features(f"inner{number}", len(weights.bias), side, border=border)
                spec = convolution_over(window, features.layout, target.layout, relu=True)
                self._program.convolve(spec, weights, features, target)
                features = target

    def _margin(self, gate: GateWeights, features: Buffer) -> Buffer:
        """A gate's margin, from the sums over all pixels that the features were written with."""
        pooled = features.pooled()
        hidden_weight = self._weight(gate.hidden_weight) * _share(features)
        hidden = self._vector("hidden", len(hidden_weight))
        self._program.fully_connected(Weights(hidden_weight, self._weight(gate.hidden_bias)), pooled, hidden, relu=True)
        margin_weight = self._weight(gate.margin_weight)
        missing = hidden.layout.channels - margin_weight.shape[1]
        margin = self._vector("margin", 1)
        weights = Weights(np.pad(margin_weight, ((0, 0), (0, missing))), self._weight(gate.margin_bias))
        self._program.fully_connected(weights, hidden, margin)
        return margin

    def _tail(self, features: Buffer) -> None:
        """The classifier, on the mean over all pixels."""
        expect(self._graph.tail, "ReduceMean Gemm")
        names = self._graph.tail[1].input
        weight = self._weight(names[1]) * _share(features)
        logits = self._vector("logits", len(weight))
        self._program.fully_connected(Weights(weight, self._weight(names[2])), features.pooled(), logits)
        self._program.finish(logits, len(weight))

    def _features(self, use: str, channels: int, side: int, unit: float = 1.0, border: int | None = None) -> Buffer:
        """A buffer for features, with the border that the first convolutions of blocks reach beyond them."""
        if border is None:
            border = max(window_of(block.residual_nodes[0]).padding for block in self._graph.blocks)
        return replace(self._buffer(use, channels, side, border, self._layers.element_type), unit=unit)

    def _vector(self, use: str, channels: int) -> Buffer:
        whole = -(-channels // self._program.lanes) * self._program.lanes
        return self._buffer(use, whole, 1, 0, ElementType.FLOAT32)

    def _buffer(self, use: str, channels: int, side: int, border: int, element_type: ElementType) -> Buffer:
        """The same in every block that has features of this layout for this use."""
        layout = nchwc(channels, side, side, border, self._program.lanes, element_type, self._way)
        return self._program.buffers.shared(use, layout)

    def _weight(self, name: str) -> Float32Array:
        array: Float32Array = numpy_helper.to_array(self._graph.weights[name])
        return array


def _share(features: Buffer) -> np.float32:
    """What turns the sums of features into their mean."""
    return np.float32(features.unit / (features.layout.height * features.layout.width))
