from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from onnx import NodeProto, helper, numpy_helper

from artifact.manifest import ONNX_NAME
from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.layers import FloatLayers
from service.engine.runtimes.compiled.lowering import lower_network
from service.engine.runtimes.compiled.processor import VectorUnit
from service.engine.runtimes.compiled.program import Program
from service.engine.runtimes.portable_graph import PortableGraph, UnknownGraph, read_portable_graph
from tests.service.engine.runtimes.artifacts import exported_shape

Change = Callable[[PortableGraph], PortableGraph]
VECTORS = VectorUnit(lanes=8, registers=16)


def _read(tmp_path_factory: pytest.TempPathFactory, shape: str) -> PortableGraph:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape)
    return read_portable_graph(exported.folder / ONNX_NAME, exported.manifest)


@pytest.fixture
def graph(tmp_path_factory: pytest.TempPathFactory) -> PortableGraph:
    """A pooling in the stem, and three blocks: with a projection each but the second."""
    return _read(tmp_path_factory, "imagenet stem, bottlenecks")


def _compiled(graph: PortableGraph, vectors: VectorUnit = VECTORS) -> Program:
    return lower_network(graph, 0.0, vectors, FloatLayers(graph.weights, ElementType.FLOAT32))


@pytest.mark.parametrize(
    ("shape", "widest", "lanes"),
    [
        ("widths 4, 8, 16", 16, 4),
        ("widths 4, 8, 16", 8, 4),
        ("widths 4, 8, 16", 4, 4),
        ("all gated", 16, 16),
        ("all gated", 4, 4),
        ("small gates", 8, 8),
    ],
)
def test_blocks_have_as_many_channels_as_a_vector_or_fewer_that_all_layers_fill(
    tmp_path_factory: pytest.TempPathFactory, shape: str, widest: int, lanes: int
) -> None:
    assert _compiled(_read(tmp_path_factory, shape), VectorUnit(widest, 16)).lanes == lanes


@pytest.mark.parametrize(("shape", "gates"), [("first without a gate", 4), ("plain", 0), ("all gated", 5)])
def test_program_gives_a_logit_for_each_class_and_a_margin_for_each_gate(
    tmp_path_factory: pytest.TempPathFactory, shape: str, gates: int
) -> None:
    program = _compiled(_read(tmp_path_factory, shape))
    assert (program.logits_count, program.margins_count) == (6, gates)


def test_deeper_network_needs_no_more_kernels_and_scratch_memory(graph: PortableGraph) -> None:
    first, second, last = graph.blocks
    shallow, deep = _compiled(graph), _compiled(replace(graph, blocks=(first, *[second] * 5, last)))
    assert deep.scratch_size == shallow.scratch_size
    assert len(deep.module.functions) == len(shallow.module.functions)
    assert deep.margins_count == shallow.margins_count + 4


def _with(node: NodeProto, op_type: str | None = None, **attributes: object) -> NodeProto:
    """The node with other attributes; None takes one away."""
    kept = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute} | attributes
    given = {name: value for name, value in kept.items() if value is not None}
    return helper.make_node(op_type or node.op_type, node.input, node.output, node.name, **given)


def _at(nodes: Sequence[NodeProto], place: int, *instead: NodeProto) -> tuple[NodeProto, ...]:
    return (*nodes[:place], *instead, *nodes[place + 1 :])


def _stem(place: int, op_type: str | None = None, **attributes: object) -> Change:
    return lambda graph: replace(graph, stem=_at(graph.stem, place, _with(graph.stem[place], op_type, **attributes)))


def _tail(place: int, op_type: str) -> Change:
    return lambda graph: replace(graph, tail=_at(graph.tail, place, _with(graph.tail[place], op_type)))


def _nodes(part: str, change: Callable[[tuple[NodeProto, ...]], tuple[NodeProto, ...]], index: int = 0) -> Change:
    """Change the residual or shortcut nodes of a block."""

    def changed(graph: PortableGraph) -> PortableGraph:
        block = graph.blocks[index]
        other = replace(block, **{f"{part}_nodes": change(getattr(block, f"{part}_nodes"))})
        return replace(graph, blocks=(*graph.blocks[:index], other, *graph.blocks[index + 1 :]))

    return changed


def _residual(place: int, op_type: str | None = None, index: int = 0, **attributes: object) -> Change:
    return _nodes("residual", lambda nodes: _at(nodes, place, _with(nodes[place], op_type, **attributes)), index)


def _shortcut(op_type: str | None = None, **attributes: object) -> Change:
    return _nodes("shortcut", lambda nodes: _at(nodes, 0, _with(nodes[0], op_type, **attributes)))


def _weights_of(number: int, inputs: slice) -> Change:
    """Give a residual's first convolution other weights, or none."""

    def changed(nodes: tuple[NodeProto, ...]) -> tuple[NodeProto, ...]:
        node = NodeProto()
        node.CopyFrom(nodes[0])
        node.input[:] = [node.input[0], *nodes[number].input[inputs]]
        return _at(nodes, 0, node)

    return _nodes("residual", changed)


def _gate(part: str, *shape: int) -> Change:
    def changed(graph: PortableGraph) -> PortableGraph:
        gate = graph.blocks[0].gate
        assert gate is not None
        name = getattr(gate, part)
        tensor = numpy_helper.from_array(np.zeros(shape, np.float32), name)
        return replace(graph, weights={**graph.weights, name: tensor})

    return changed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(_residual(2, dilations=[2, 2]), "dilated", id="dilated"),
        pytest.param(_residual(0, group=2), "grouped", id="grouped"),
        pytest.param(_residual(0, auto_pad="SAME_UPPER"), "not square", id="padded by itself"),
        pytest.param(_residual(2, kernel_shape=[3, 1]), "not square", id="a filter that is wider than high"),
        pytest.param(_residual(2, strides=[1, 2]), "not square", id="strides that differ"),
        pytest.param(_residual(2, pads=[1, 1, 0, 0]), "not square", id="padded on two sides"),
        pytest.param(_residual(2, pads=None), "not square|fit together", id="padding that is not told"),
        pytest.param(_residual(2, kernel_shape=None), "not square|fit together", id="size that is not told"),
        pytest.param(_stem(0, strides=[0, 0]), "stride=0, padding=3\\), which is none", id="no step"),
        pytest.param(_residual(0, pads=[-1] * 4), "padding=-1\\), which is none", id="padding that takes away"),
        pytest.param(_stem(2, kernel_shape=[0, 0]), "kernel=0, .* which is none", id="pooling of nothing"),
        pytest.param(_stem(0, kernel_shape=[40, 40]), "beyond its input", id="a filter larger than the image"),
        pytest.param(_stem(2, ceil_mode=1), "not square", id="pooling that rounds up"),
        pytest.param(_stem(2, pads=[2, 2, 2, 2], kernel_shape=[5, 5]), "beyond its input", id="pooling of more"),
        pytest.param(_shortcut(pads=[1, 1, 1, 1]), "beyond its input", id="projection that reads a border"),
        pytest.param(_residual(2, pads=[0, 0, 0, 0]), "beyond its input", id="residual that is smaller"),
        pytest.param(_residual(4, strides=[2, 2], index=1), "beyond its input", id="residual of a quarter"),
        pytest.param(_residual(0, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "fit together", id="filter without weights"),
        pytest.param(lambda graph: replace(graph, input_size=0), "beyond its input", id="no image"),
        pytest.param(_weights_of(2, slice(1, None)), "fit together", id="weights of another convolution"),
        pytest.param(_weights_of(0, slice(1, 2)), "fit together", id="no bias"),
        pytest.param(_weights_of(0, slice(2, None)), "fit together", id="no weights"),
        pytest.param(lambda graph: replace(graph, weights={}), "fit together", id="no weights at all"),
        pytest.param(_gate("hidden_weight", 16, 8), "fit together", id="gate for fewer channels"),
        pytest.param(_gate("margin_weight", 1, 17), "fit together", id="gate of more hidden units"),
        pytest.param(_gate("margin_bias", 9), "fit together", id="gate of several margins"),
        pytest.param(_stem(1, "Sigmoid"), "no way here to run Conv, Sigmoid", id="another activation"),
        pytest.param(_stem(2, "AveragePool"), "Conv, Relu, AveragePool", id="another pooling"),
        pytest.param(_stem(0, "ConvTranspose"), "fit together|no way here", id="no convolution first"),
        pytest.param(_shortcut("MaxPool"), "run MaxPool", id="a shortcut without weights"),
        pytest.param(_nodes("shortcut", lambda nodes: (*nodes, *nodes)), "run Conv, Conv", id="two projections"),
        pytest.param(_residual(1, "Sigmoid"), "Conv, Sigmoid, Conv", id="another activation in a block"),
        pytest.param(_residual(-2, "Mul"), "Mul, Relu", id="no sum with the shortcut"),
        pytest.param(_nodes("residual", lambda nodes: nodes[2:-1]), "run Conv, Relu, Conv, Add", id="no last ReLU"),
        pytest.param(_nodes("residual", lambda nodes: nodes[4:]), "run Conv, Add, Relu", id="a single convolution"),
        pytest.param(_nodes("residual", lambda _: ()), "no way|fit together", id="nothing in a block"),
        pytest.param(_tail(0, "ReduceMax"), "run ReduceMax, Gemm", id="another pooling at the end"),
        pytest.param(_tail(1, "MatMul"), "run ReduceMean, MatMul", id="another classifier"),
    ],
)
def test_network_that_is_built_otherwise_is_refused(graph: PortableGraph, change: Change, problem: str) -> None:
    with pytest.raises(UnknownGraph, match=problem):
        _compiled(change(graph))
