"""How a convolution sums its products, for each kind of number that its input is kept in.

Every step takes one word of a pixel's channels, spread over a vector, and the weights for it as a vector over the
output channels: one product in float32, two in bfloat16 and four in 8 bits are added to sums of 32 bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from llvmlite import ir

from service.engine.compiled.emitter import BFLOAT, BYTE, FLOAT, WORD, Emitter, Term
from service.engine.compiled.numbers import Numbers


class Products(ABC):
    """Emits products.

    Attributes:
        kind: of the numbers.
        in_a_word: how many of them a word holds.
        constants: how many numbers for each output channel come before its weights: the bias, and for sums that are
            whole numbers what 1 of them stands for.
    """

    kind: ir.Type
    in_a_word: int
    constants = 1

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit

    def weights(self, pointer: ir.Value, *terms: Term) -> ir.Value:
        """Weights from memory, for one step."""
        return self._emit.read(self._emit.vector_of(self.kind, self.in_a_word), pointer, *terms)

    def inputs(self, pointer: ir.Value, *terms: Term) -> ir.Value:
        """A pixel's word from memory, spread over a vector."""
        spread = self._emit.spread(self._emit.read(WORD, pointer, *terms))
        return self._emit.builder.bitcast(spread, self._emit.vector_of(self.kind, self.in_a_word))

    @abstractmethod
    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """Sums with the products of one step."""


class FloatProducts(Products):
    """In float32."""

    kind, in_a_word = FLOAT, 1

    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """See `Products.add`."""
        return self._emit.multiply_add(inputs, weights, total)


class PairProducts(Products):
    """In bfloat16, with sums in float32, by AVX-512 BF16."""

    kind, in_a_word = BFLOAT, 2

    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """See `Products.add`."""
        # Its last operand can be a word in memory that is spread on the way, and the inputs are the more of the two.
        return self._emit.instruction("llvm.x86.avx512bf16.dpbf16ps.512", total, weights, inputs)


class ByteProducts(Products):
    """In 8 bits, of which the weights' have a sign, by AVX-512 VNNI; sums are whole numbers."""

    kind, in_a_word = BYTE, 4
    constants = 2

    @property
    def nothing(self) -> ir.Value:
        """Sums of no products."""
        return ir.Constant(self._emit.vector_of(WORD), [0] * self._emit.lanes)

    def add(self, total: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
        """See `Products.add`."""
        return self._emit.instruction("llvm.x86.avx512.vpdpbusd.512", total, inputs, weights)

    def real(self, total: ir.Value, scale: ir.Value, bias: ir.Value) -> ir.Value:
        """What sums stand for, in float32."""
        return self._emit.multiply_add(self._emit.builder.sitofp(total, self._emit.vector), scale, bias)


def products_of(numbers: Numbers) -> type[FloatProducts | PairProducts | ByteProducts]:
    """How products with inputs of this kind are summed."""
    kinds: dict[Numbers, type[FloatProducts | PairProducts | ByteProducts]] = {
        Numbers.FLOAT32: FloatProducts,
        Numbers.BFLOAT16: PairProducts,
        Numbers.UINT8: ByteProducts,
    }
    return kinds[numbers]
