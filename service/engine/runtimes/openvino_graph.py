"""The network as OpenVINO models, one for each way through each block, so that little is converted between them.

OpenVINO runs an If of the portable graph, but hands tensors to its branches and back in plain fp32 layout: every block
pays for two conversions. Cut at its branches instead, the network is a chain of small models that pass features on in
the layout and precision their convolutions work in, (N, H, W, C) for bf16, and a skipped block costs nothing at all. In
fp32 features are passed on as (N, C, H, W), which OpenVINO reorders, because measured the other way was slower still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import openvino
from onnx import NodeProto, TensorProto, helper, numpy_helper
from openvino import opset13 as ops
from openvino.preprocess import PrePostProcessor

from artifact.manifest import INPUT_NAMES
from artifact.preprocessing import Float32Array
from service.engine.runtimes.base import Precision
from service.engine.runtimes.portable_graph import GateWeights, PortableBlock, PortableGraph

# Of the features between the parts.
_LAYOUTS = {"fp32": "NCHW", "bf16": "NHWC"}
_TYPES = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


@cache
def core() -> openvino.Core:
    """OpenVINO in this process, which lasts as long as that.

    A core's CPU plugin changes the stack that signals are handled on (sigaltstack), and when it ends it puts back what
    it found. Cores that do not end in the reverse order of their beginnings leave one that is gone, and the next signal
    ends the process.
    """
    return openvino.Core()


@dataclass(frozen=True)
class Part:
    """A piece of the network, compiled: features to features; and the model that pools them for gates.

    Attributes:
        body: one input, one output.
        pool: from the body's output to its mean over the pixels, (1, C) float32.
    """

    body: openvino.CompiledModel
    pool: openvino.CompiledModel


@dataclass(frozen=True)
class Gate:
    """The weights of a gate: hidden (16, C) and (16,), margin (16,) and a number."""

    hidden_weight: Float32Array
    hidden_bias: Float32Array
    margin_weight: Float32Array
    margin_bias: np.float32

    def margin(self, pooled: Float32Array) -> np.float32:
        """The margin for pooled features (C,)."""
        hidden = self.hidden_weight @ pooled
        hidden += self.hidden_bias
        np.maximum(hidden, 0, out=hidden)
        return np.float32(self.margin_weight @ hidden + self.margin_bias)


@dataclass(frozen=True)
class Step:
    """One block.

    Attributes:
        executed: runs it.
        skipped: what a closed gate leaves to do: a projection; None where features simply pass.
        gate: None where the block always runs.
    """

    executed: Part
    skipped: Part | None
    gate: Gate | None


@dataclass(frozen=True)
class Chain:
    """The whole network for one image.

    Attributes:
        stem: from (1, 3, H, W) float32 images.
        steps: the blocks.
        classifier_weight, classifier_bias: (classes, C) and (classes,), for the last features pooled.
    """

    stem: Part
    steps: tuple[Step, ...]
    classifier_weight: Float32Array
    classifier_bias: Float32Array


class ChainBuilder:
    """Compiles a portable graph.

    Args:
        graph: the network.
        precision: of the convolutions; pooling and gates are in fp32 always.
    """

    def __init__(self, graph: PortableGraph, precision: Precision) -> None:
        self._graph = graph
        self._core = core()
        self._layout, self._type = openvino.Layout(_LAYOUTS[precision]), _TYPES[precision]
        self._hint = {"fp32": "f32", "bf16": "bf16"}[precision]

    def build(self) -> Chain:
        """Compile every part."""
        side = self._graph.input_size
        stem_output = self._graph.stem[-1].output[0]
        stem, shape = self._part(self._graph.stem, INPUT_NAMES[0], stem_output, [1, 3, side, side])
        steps = []
        for block in self._graph.blocks:
            step, shape = self._step(block, shape)
            steps.append(step)
        classifier = self._graph.tail[-1]
        return Chain(stem, tuple(steps), self._weight(classifier.input[1]), self._weight(classifier.input[2]))

    def _step(self, block: PortableBlock, shape: Sequence[int]) -> tuple[Step, list[int]]:
        nodes = [*block.shortcut_nodes, *block.residual_nodes]
        executed, output_shape = self._part(nodes, block.input, block.output, shape)
        if block.gate is None:
            return Step(executed, None, None), output_shape
        skipped = None
        if block.shortcut_nodes:
            relu = helper.make_node("Relu", [block.shortcut], ["skipped"], name="skipped")
            skipped, _ = self._part([*block.shortcut_nodes, relu], block.input, "skipped", shape)
        return Step(executed, skipped, self._gate(block.gate)), output_shape

    def _gate(self, gate: GateWeights) -> Gate:
        return Gate(
            self._weight(gate.hidden_weight),
            self._weight(gate.hidden_bias),
            self._weight(gate.margin_weight)[0],
            self._weight(gate.margin_bias)[0],
        )

    def _weight(self, name: str) -> Float32Array:
        values: Float32Array = numpy_helper.to_array(self._graph.weights[name])
        return values

    def _part(
        self, nodes: Sequence[NodeProto], source: str, target: str, shape: Sequence[int]
    ) -> tuple[Part, list[int]]:
        """Compile nodes that lead from one tensor, (1, C, H, W), to another; return its shape, too."""
        value = helper.make_tensor_value_info
        model = self._graph.model(
            nodes, [value(source, TensorProto.FLOAT, shape)], [value(target, TensorProto.FLOAT, None)]
        )
        body = self._core.read_model(model=model.SerializeToString())
        output_shape = list(body.output(0).shape)
        prepared = PrePostProcessor(body)
        ends = [prepared.output()] if source == INPUT_NAMES[0] else [prepared.input(), prepared.output()]
        for end in ends:
            end.tensor().set_element_type(self._type).set_layout(self._layout)
            end.model().set_layout(openvino.Layout("NCHW"))
        compiled = self._compile(prepared.build(), self._hint)
        return Part(compiled, self._compile(self._pool(compiled.output(0).shape), "f32")), output_shape

    def _pool(self, shape: openvino.Shape) -> openvino.Model:
        """A model of its own: as a second output of the body it would bring the conversions back."""
        features = ops.parameter(list(shape), self._type)
        pixels = [1, 2] if self._layout == openvino.Layout("NHWC") else [2, 3]
        pooled = ops.reduce_mean(ops.convert(features, "f32"), ops.constant(np.array(pixels)), keep_dims=False)
        return openvino.Model([pooled], [features], "pool")

    def _compile(self, model: openvino.Model, hint: str) -> openvino.CompiledModel:
        # One stream of one thread runs on the thread that calls, and so on as many as call. Pinned, all of those would
        # share one core; with more streams, every run would be handed to another thread and back.
        settings = {
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": hint,
        }
        return self._core.compile_model(model, "CPU", settings)
