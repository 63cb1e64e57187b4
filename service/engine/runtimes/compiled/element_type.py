"""The type of features in memory: float32, or fewer bits, of which a word of 32 holds several."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from artifact.preprocessing import Float32Array
from service.engine.runtimes.base import Precision
from service.engine.runtimes.compiled.emitter import BFLOAT, BYTE, WORD, Emitter, Term

_LARGEST_BYTE = 255


class ElementType(Enum):
    """Its value says how many elements a word holds.

    Those of 8 bits are unsigned, and stand for multiples of a scale that their buffer has.
    """

    FLOAT32 = 1
    BFLOAT16 = 2
    UINT8 = 4

    def load(self, emit: Emitter, pointer: ir.Value, *terms: Term) -> ir.Value:
        """A vector from memory, in float32."""
        if self is ElementType.FLOAT32:
            return emit.load(pointer, *terms)
        if self is ElementType.BFLOAT16:
            return emit.builder.fpext(emit.load_as(emit.vector_of(BFLOAT), pointer, *terms), emit.vector)
        return emit.builder.uitofp(emit.load_as(emit.vector_of(BYTE), pointer, *terms), emit.vector)

    def store(self, emit: Emitter, value: ir.Value, pointer: ir.Value, *terms: Term) -> None:
        """Write a vector of float32 to memory, rounded to nearest even.

        For 8 bits it must not be negative.

        Raises:
            RuntimeUnavailable: the processor does not convert to bfloat16. LLVM would call a function for it that is in
                no library here, and to load code that calls what is not there ends the process.
        """
        if self is ElementType.BFLOAT16:
            emit.vectors.require_bf16()
            value = emit.builder.fptrunc(value, emit.vector_of(BFLOAT))
        elif self is ElementType.UINT8:
            whole = emit.intrinsic("llvm.lrint", emit.vector_of(WORD), value)
            largest = ir.Constant(whole.type, [_LARGEST_BYTE] * emit.lanes)
            value = emit.builder.trunc(emit.intrinsic("llvm.umin", whole.type, whole, largest), emit.vector_of(BYTE))
        emit.store(value, pointer, *terms)


ELEMENT_TYPES: dict[Precision, ElementType] = {
    "fp32": ElementType.FLOAT32,
    "bf16": ElementType.BFLOAT16,
    "int8": ElementType.UINT8,
}


def to_bfloat16(values: Float32Array) -> npt.NDArray[np.uint16]:
    """The upper halves of numbers that are finite, rounded to nearest even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
