"""What a convolution or a pooling slides over its input, read from the nodes of the portable graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto, helper

from service.engine.runtimes.portable_graph import UnknownGraph


@dataclass(frozen=True)
class Window:
    """Its size, its steps and how far it reaches beyond the input, in pixels, the same both ways."""

    kernel: int
    stride: int
    padding: int

    def over(self, size: int) -> int:
        """Size of the output, in pixels.

        Raises:
            UnknownGraph: there is none, because the input is smaller than the window.
        """
        if self.kernel > size + 2 * self.padding:
            raise UnknownGraph(f"a filter of {self.kernel} x {self.kernel} reaches beyond its input")
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


def window_of(node: NodeProto) -> Window:
    """Of a node whose filter is square.

    Raises:
        UnknownGraph: it is not, or has no size.
    """
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    sizes = [{*found[name]} for name in ("kernel_shape", "strides", "pads")]
    if any(len(each) != 1 for each in sizes) or not {*found} <= {"kernel_shape", "strides", "pads"}:
        raise UnknownGraph(f"{node.name} has a filter that is not square, or dilated, or grouped")
    window = Window(*(each.pop() for each in sizes))
    if window.kernel < 1 or window.stride < 1 or window.padding < 0:
        raise UnknownGraph(f"{node.name} has {window}, which is none")
    return window


def expect(nodes: Sequence[NodeProto], *known: str) -> None:
    """Refuse nodes that are none of the known sequences, such as "Conv Relu".

    Raises:
        UnknownGraph: they are something else.
    """
    kinds = [node.op_type for node in nodes]
    if kinds not in [each.split() for each in known]:
        raise UnknownGraph(f"there is no way here to run {', '.join(kinds)}")
