"""ONNX graphs put together node by node, for one main graph and the branches of its Ifs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from artifact.manifest import INPUT_NAMES, OUTPUT_NAMES

# Opset 18 and IR version 9 hold all that is needed and are read by runtimes of 2023 and later.
_OPSET, _IR_VERSION = 18, 9


class GraphBuilder:
    """Nodes of the main graph or of one branch. Weights always go to the main graph, where branches can see them."""

    def __init__(self, prefix: str = "", weights: dict[str, TensorProto] | None = None) -> None:
        self._prefix = prefix
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, TensorProto] = {} if weights is None else weights

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name, which is unique in the whole model."""
        (output,) = self.add_several(op, inputs, [name], **attributes)
        return output

    def add_several(self, op: str, inputs: Sequence[str], names: Sequence[str], **attributes: Any) -> list[str]:
        """Add a node with an output of each name; return the outputs' names, of which the first is the node's too."""
        outputs = [f"{self._prefix}{name}" for name in names]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, name=outputs[0], **attributes))
        return outputs

    def weight(self, name: str, values: np.ndarray) -> str:
        """Store a weight under its own name, once; return the name."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def linear(self, layer: nn.Linear, weight: str) -> list[str]:
        """Store the weights of a linear layer under `weight`, once; return their names, for a Gemm with transB=1."""
        return [
            self.weight(f"{weight}.weight", array(layer.weight)),
            self.weight(f"{weight}.bias", array(layer.bias)),
        ]

    def branch(self, name: str) -> GraphBuilder:
        """A graph for a branch of an If."""
        return GraphBuilder(f"{self._prefix}{name}/", self._weights)

    def as_branch(self, *outputs: str, element_type: int = TensorProto.FLOAT) -> GraphProto:
        """The finished branch, with these outputs."""
        values = [helper.make_tensor_value_info(output, element_type, None) for output in outputs]
        return helper.make_graph(self._nodes, self._prefix.rstrip("/"), [], values)

    def classify(
        self, pooled: str, classifier: nn.Linear, name: str = OUTPUT_NAMES[0], weight: str = "classifier"
    ) -> str:
        """Add the logits from the pooled features (N, C)."""
        return self.add("Gemm", [pooled, *self.linear(classifier, weight)], name, transB=1)

    def join(self, margins: Sequence[str], logits: str) -> str:
        """Add the output of the margins, from those of each gate (N, 1); of a network without gates they are (N, 0)."""
        if margins:
            return self.add("Concat", margins, OUTPUT_NAMES[1], axis=1)
        nothing = self.weight("nothing", np.array([0]))
        axis = self.weight("axis_1", np.array([1]))
        return self.add("Slice", [logits, nothing, nothing, axis], OUTPUT_NAMES[1])

    def model(
        self,
        shapes: dict[str, Sequence[int | str]],
        domains: Sequence[str] = (),
    ) -> ModelProto:
        """The finished model.

        Args:
            shapes: of the inputs and outputs in the artifact's contract, by name.
            domains: of operators beyond the standard.
        """
        values = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
            for name in (*INPUT_NAMES, *OUTPUT_NAMES)
        }
        # An initializer under the name of an input is that input's default: a caller may leave the offset out.
        default_offset = numpy_helper.from_array(np.zeros(1, np.float32), INPUT_NAMES[1])
        main = helper.make_graph(
            self._nodes,
            "convnet_aig",
            [values[name] for name in INPUT_NAMES],
            [values[name] for name in OUTPUT_NAMES],
            [default_offset, *self._weights.values()],
        )
        opsets = [helper.make_operatorsetid("", _OPSET), *(helper.make_operatorsetid(domain, 1) for domain in domains)]
        return helper.make_model(
            main, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="convnet-aig-serving"
        )


def array(parameter: Tensor) -> np.ndarray:
    """The values of a weight."""
    values: np.ndarray = parameter.detach().cpu().numpy()
    return values
