"""From the parts of the portable graph to the program of the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from artifact.preprocessing import Float32Array
from service.engine.compiled.convolution import Convolution
from service.engine.compiled.layout import Layout, blocked, planar
from service.engine.compiled.pooling import MaxPool
from service.engine.compiled.processor import Vectors
from service.engine.compiled.program import Place, Program, Weights
from service.engine.portable_graph import GateWeights, PortableBlock, PortableGraph, UnknownGraph

# How far beyond its pixels features may be read: all convolutions but the first have filters of 3 x 3 or 1 x 1.
_BORDER = 1
_COLOURS = 3


@dataclass(frozen=True)
class _Window:
    """What a convolution or a pooling slides over its input."""

    kernel: int
    stride: int
    padding: int

    def over(self, size: int) -> int:
        """Size of the output, in pixels."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def check(self, source: Layout, target: Layout) -> None:
        """Refuse what would read or write where no features are."""
        if self.padding > source.padding or not 0 < target.width == self.over(source.width):
            raise UnknownGraph(f"a filter of {self.kernel} x {self.kernel} reaches beyond its input")


def compile_network(graph: PortableGraph, gate_threshold: float, vectors: Vectors) -> Program:
    """The program for one image at a time.

    A gate is open where margin + offset > gate_threshold.

    Raises:
        UnknownGraph: the network has parts that no kernel here is for.
    """
    try:
        return _Compilation(graph, gate_threshold, vectors).program()
    except UnknownGraph:
        raise
    except (LookupError, ValueError) as error:  # a missing weight or attribute, and shapes that fit no layer
        raise UnknownGraph(f"its parts do not fit together: {error!r}") from error


class _Compilation:
    def __init__(self, graph: PortableGraph, gate_threshold: float, vectors: Vectors) -> None:
        self._graph = graph
        self._threshold = gate_threshold
        self._program = Program(vectors, self._lanes(vectors.lanes))
        # Features of one size can use the same memory in every block.
        self._places: dict[tuple[str, int, int, int], Place] = {}
        self._gates = 0

    def program(self) -> Program:
        """The whole program."""
        features = self._stem()
        for block in self._graph.blocks:
            features = self._block(block, features)
        self._tail(features)
        return self._program

    def _lanes(self, widest: int) -> int:
        """Channels in a block: as many as a vector has lanes, or fewer where channel counts are no multiple of that."""
        convolutions = [*self._graph.stem[:1]]
        for block in self._graph.blocks:
            convolutions += [node for node in (*block.shortcut_nodes, *block.residual_nodes) if node.op_type == "Conv"]
        channels = [len(self._convolution(node).bias) for node in convolutions]
        for lanes in (widest, widest // 2, widest // 4):
            if lanes > 1 and all(count % lanes == 0 for count in channels):
                return lanes
        raise UnknownGraph("there are layers whose channels fill no vectors")

    def _stem(self) -> Place:
        """The first convolution, and the pooling of networks for large images."""
        first, *others = self._graph.stem
        _expect([node.op_type for node in (first, *others)], ["Conv", "Relu"], ["Conv", "Relu", "MaxPool"])
        window, side = _window(first), self._graph.input_size
        weights = self._convolution(first)
        image = self._program.place(planar(_COLOURS, side, window.padding))
        self._program.load_image(image)
        features = self._place("stem", len(weights.bias), window.over(side), border=_BORDER)
        self._convolve(window, weights, image, features, relu=True, pools=True)
        if len(others) == 1:
            return features
        pooling = _window(others[-1])
        pooled = self._place("features", len(weights.bias), pooling.over(features.layout.width))
        pooling.check(features.layout, pooled.layout)
        spec = MaxPool(pooling.kernel, pooling.stride, pooling.padding, features.layout, pooled.layout)
        self._program.max_pool(spec, features, pooled)
        return pooled

    def _block(self, block: PortableBlock, features: Place) -> Place:
        """A block with its gate; its output takes the place of its input where the shortcut is the identity."""
        if block.shortcut_nodes:
            _expect([node.op_type for node in block.shortcut_nodes], ["Conv"])
            window, weights = _window(block.shortcut_nodes[0]), self._convolution(block.shortcut_nodes[0])
            side = window.over(features.layout.width)
            output = self._place("features", len(weights.bias), side)
            if output == features:  # a stride has nothing to leave out of a single pixel
                output = self._place("other features", len(weights.bias), side)

            def opened() -> None:
                self._convolve(window, weights, features, output)
                self._residual(block, features, output)

            def closed() -> None:
                self._convolve(window, weights, features, output, relu=True, pools=True)

        else:
            output = features

            def opened() -> None:
                self._residual(block, features, output)

            def closed() -> None:
                """The features stay as they are: they are a ReLU's already."""

        if block.gate is None:
            opened()
        else:
            self._program.branch(self._margin(block.gate, features), self._gates, self._threshold, opened, closed)
            self._gates += 1
        return output

    def _residual(self, block: PortableBlock, features: Place, output: Place) -> None:
        """The convolutions of a block; the last adds to what is in the output's place already."""
        *body, add, relu = block.residual_nodes
        kinds = [node.op_type for node in (*body, add, relu)]
        _expect(kinds, ["Conv", "Relu", "Conv", "Add", "Relu"], ["Conv", "Relu", "Conv", "Relu", "Conv", "Add", "Relu"])
        *inner, last = [node for node in body if node.op_type == "Conv"]
        for number, node in enumerate(inner):
            window, weights = _window(node), self._convolution(node)
            side = window.over(features.layout.width)
            border = _window((*inner, last)[number + 1]).padding
            target = self._place(f"inner{number}", len(weights.bias), side, border=border)
            self._convolve(window, weights, features, target, relu=True)
            features = target
        self._convolve(_window(last), self._convolution(last), features, output, relu=True, adds=True, pools=True)

    def _margin(self, gate: GateWeights, features: Place) -> Place:
        """A gate's margin, from the sums over all pixels that the features were written with."""
        pooled = self._program.sums(features)
        hidden_weight = self._weight(gate.hidden_weight) / np.float32(features.layout.height * features.layout.width)
        hidden = self._vector("hidden", len(hidden_weight))
        self._program.connect(Weights(hidden_weight, self._weight(gate.hidden_bias)), pooled, hidden, relu=True)
        margin_weight = self._weight(gate.margin_weight)
        missing = hidden.layout.channels - margin_weight.shape[1]
        margin = self._vector("margin", 1)
        weights = Weights(np.pad(margin_weight, ((0, 0), (0, missing))), self._weight(gate.margin_bias))
        self._program.connect(weights, hidden, margin)
        return margin

    def _tail(self, features: Place) -> None:
        """The classifier, on the mean over all pixels."""
        _expect([node.op_type for node in self._graph.tail], ["ReduceMean", "Gemm"])
        names = self._graph.tail[1].input
        weight = self._weight(names[1]) / np.float32(features.layout.height * features.layout.width)
        logits = self._vector("logits", len(weight))
        self._program.connect(Weights(weight, self._weight(names[2])), self._program.sums(features), logits)
        self._program.finish(logits, len(weight))

    def _convolve(
        self,
        window: _Window,
        weights: Weights,
        source: Place,
        target: Place,
        relu: bool = False,
        adds: bool = False,
        pools: bool = False,
    ) -> None:
        window.check(source.layout, target.layout)
        spec = Convolution(
            window.kernel, window.stride, window.padding, source.layout, target.layout, relu, adds, pools
        )
        self._program.convolve(spec, weights, source, target)

    def _place(self, use: str, channels: int, side: int, border: int | None = None) -> Place:
        if border is None:
            border = self._border_of_features()
        key = use, channels, side, border
        if key not in self._places:
            self._places[key] = self._program.place(blocked(channels, side, side, border, self._program.lanes))
        return self._places[key]

    def _vector(self, use: str, channels: int) -> Place:
        whole = -(-channels // self._program.lanes) * self._program.lanes
        return self._place(use, whole, 1, border=0)

    def _border_of_features(self) -> int:
        """What the first convolutions of blocks reach beyond the features."""
        return max(_window(block.residual_nodes[0]).padding for block in self._graph.blocks)

    def _convolution(self, node: NodeProto) -> Weights:
        return Weights(self._weight(node.input[1]), self._weight(node.input[2]))

    def _weight(self, name: str) -> Float32Array:
        array: Float32Array = numpy_helper.to_array(self._graph.weights[name])
        return array


def _window(node: NodeProto) -> _Window:
    """Of a node whose filter is square.

    Raises:
        UnknownGraph: it is not.
    """
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    sizes = [{*found[name]} for name in ("kernel_shape", "strides", "pads")]
    if any(len(each) != 1 for each in sizes) or not {*found} <= {"kernel_shape", "strides", "pads"}:
        raise UnknownGraph(f"{node.name} has a filter that is not square, or dilated, or grouped")
    return _Window(*(each.pop() for each in sizes))


def _expect(kinds: Sequence[str], *known: list[str]) -> None:
    if list(kinds) not in known:
        raise UnknownGraph(f"there is no way here to run {', '.join(kinds)}")
