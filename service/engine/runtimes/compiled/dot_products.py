"""The dot products of a convolution, for each element type of its input.

Every step takes one word of a pixel's channels, broadcast over a vector, and the weights for it as a vector over the
output channels: one product in float32, two in bfloat16 and four in int8 are added to accumulators of 32 bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from llvmlite import ir

from service.engine.runtimes.compiled.element_type import ElementType
from service.engine.runtimes.compiled.emitter import BFLOAT, BYTE, FLOAT, WORD, Emitter, Term

# The instructions for several products at a time are of 512 bits.
_WIDEST = 16

# Loads one of the constants before the weights, for each of a tile's sums; and adds the residual to them.
Constants = Callable[[int], list[ir.Value]]
Addition = Callable[[list[ir.Value]], list[ir.Value]]


class DotProduct(ABC):
    """Emits the products, and what the sums begin and end with.

    Attributes:
        kind: of an element.
        in_a_word: how many of them a word holds.
        constants: how many for each output channel come before its weights: the bias, and for integer sums the scale.
    """

    kind: ir.Type
    in_a_word: int
    constants = 1

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit

    def weights(self, pointer: ir.Value, *terms: Term) -> ir.Value:
        """Weights from memory, for one step."""
        return self._emit.load_as(self._emit.vector_of(self.kind, self.in_a_word), pointer, *terms)

    def inputs(self, pointer: ir.Value, *terms: Term) -> ir.Value:
        """A pixel's word from memory, broadcast over a vector."""
        broadcast = self._emit.broadcast(self._emit.load_as(WORD, pointer, *terms))
        return self._emit.builder.bitcast(broadcast, self._emit.vector_of(self.kind, self.in_a_word))

    @abstractmethod
    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """Sums with the products of one step."""

    def initial(self, _count: int, constants: Constants, added: Addition) -> list[ir.Value]:
        """So many sums before any product: the bias, and the residual."""
        return added(constants(0))

    def final(self, sums: list[ir.Value], _constants: Constants, _added: Addition) -> list[ir.Value]:
        """What sums with all their products stand for, in float32."""
        return sums


class Float32DotProduct(DotProduct):
    """In float32."""

    kind, in_a_word = FLOAT, 1

    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """See `DotProduct.add`."""
        return self._emit.fma(inputs, weights, total)


class Bfloat16DotProduct(DotProduct):
    """In bfloat16, with sums in float32, by AVX-512 BF16."""

    kind, in_a_word = BFLOAT, 2

    def __init__(self, emit: Emitter) -> None:
        super().__init__(emit)
        emit.vectors.require_bf16(_WIDEST)

    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """See `DotProduct.add`."""
        # Its last operand can be a word in memory that is broadcast on the way: of the inputs there are more.
        return self._emit.instruction("llvm.x86.avx512bf16.dpbf16ps.512", total, weights, inputs)


class Int8DotProduct(DotProduct):
    """In 8 bits, signed in the weights, by AVX-512 VNNI; sums are integers until they are dequantised."""

    kind, in_a_word = BYTE, 4
    constants = 2

    def __init__(self, emit: Emitter) -> None:
        super().__init__(emit)
        emit.vectors.require_int8(_WIDEST)

    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """See `DotProduct.add`."""
        return self._emit.instruction("llvm.x86.avx512.vpdpbusd.512", total, inputs, weights)

    def initial(self, count: int, _constants: Constants, _added: Addition) -> list[ir.Value]:
        """Zeros: bias and residual are no integers."""
        return [ir.Constant(self._emit.vector_of(WORD), [0] * self._emit.lanes)] * count

    def final(self, sums: list[ir.Value], constants: Constants, added: Addition) -> list[ir.Value]:
        """See `DotProduct.final`."""
        emit, bias, scale = self._emit, constants(0), constants(1)
        real = [emit.builder.sitofp(each, emit.vector) for each in sums]
        return added([emit.fma(*each) for each in zip(real, scale, bias, strict=True)])


_DOT_PRODUCTS: dict[ElementType, type[DotProduct]] = {
    ElementType.FLOAT32: Float32DotProduct,
    ElementType.BFLOAT16: Bfloat16DotProduct,
    ElementType.UINT8: Int8DotProduct,
}


def dot_product_of(element_type: ElementType, emit: Emitter) -> DotProduct:
    """The dot products of inputs of this type.

    Raises:
        RuntimeUnavailable: the processor has no instruction for them in vectors of so many lanes.
    """
    return _DOT_PRODUCTS[element_type](emit)
