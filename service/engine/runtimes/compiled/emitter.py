"""Emits LLVM's intermediate representation (IR): loops, addresses and vectors, in float32 and 64-bit integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from llvmlite import ir

from service.engine.runtimes.compiled.processor import VectorUnit


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


FLOAT, INT, POINTER, VOID = ir.FloatType(), ir.IntType(64), ir.PointerType(), ir.VoidType()
BFLOAT, BYTE, WORD = _BFloat(), ir.IntType(8), ir.IntType(32)

# Part of an address: an index that the function computes, one that is known, or one that counts in strides.
Term: TypeAlias = ir.Value | int | tuple[ir.Value, int]


class Emitter:
    """Adds instructions to one function.

    Args:
        module: to add the function to.
        name: of the function.
        arguments: their types; it returns nothing.
        vectors: of the processor that is to run it.
    """

    def __init__(self, module: ir.Module, name: str, arguments: Sequence[ir.Type], vectors: VectorUnit) -> None:
        self.function = ir.Function(module, ir.FunctionType(VOID, arguments), name)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.vectors = vectors
        self.lanes = lanes = vectors.lanes
        self.vector = ir.VectorType(FLOAT, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)
        self._module = module

    def promise(self, argument: ir.Argument, *attributes: str, alignment: int = 4) -> None:
        """Promise LLVM what holds for an address that the function is called with.

        Args:
            argument: of the function.
            attributes: LLVM's parameter attributes, such as "noalias". That no copy of the address outlives the call is
                promised always: the functions here have nowhere to keep one.
            alignment: of the address, in bytes.
        """
        argument.attributes.update({"captures(none)", *attributes})
        argument.attributes.align = alignment

    def end(self) -> None:
        """Return from the function."""
        self.builder.ret_void()

    def loop(
        self,
        count: int,
        body: Callable[[ir.Value, list[ir.Value]], Sequence[ir.Value]],
        carried: Sequence[ir.Value] = (),
    ) -> list[ir.Value]:
        """Run the body for 0, 1, … `count` - 1.

        Args:
            count: at least 1.
            body: emits what is done for an index; gets the carried values as they are then and returns the new ones.
            carried: values to begin with.

        Returns:
            The carried values at the end.
        """
        builder = self.builder
        before, start = builder.block, builder.append_basic_block("loop")
        builder.branch(start)
        builder.position_at_end(start)
        index = builder.phi(INT)
        index.add_incoming(integer(0), before)
        current = [builder.phi(value.type) for value in carried]
        for phi, value in zip(current, carried, strict=True):
            phi.add_incoming(value, before)
        after = list(body(index, list(current)))
        following = builder.add(index, integer(1))
        index.add_incoming(following, builder.block)
        for phi, value in zip(current, after, strict=True):
            phi.add_incoming(value, builder.block)
        end = builder.append_basic_block("end")
        builder.cbranch(builder.icmp_signed("<", following, integer(count)), start, end)
        builder.position_at_end(end)
        return after

    def each(self, count: int, body: Callable[[ir.Value], None]) -> None:
        """Run the body for 0, 1, … `count` - 1, carrying nothing."""

        def once(index: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            body(index)
            return []

        self.loop(count, once)

    def address(self, pointer: ir.Value, *terms: Term) -> ir.Value:
        """The address of a word, so many words from `pointer` as the terms say together."""
        offset: ir.Value = integer(sum(term for term in terms if isinstance(term, int)))
        for term in terms:
            if isinstance(term, tuple):
                index, stride = term
                offset = self.builder.add(offset, self.builder.mul(index, integer(stride)))
            elif not isinstance(term, int):
                offset = self.builder.add(offset, term)
        return self.builder.gep(pointer, [offset], inbounds=True, source_etype=FLOAT)

    def vector_of(self, kind: ir.Type, of_each: int = 1) -> ir.VectorType:
        """The type of a vector of something else, with one or several for each lane."""
        return ir.VectorType(kind, of_each * self.lanes)

    def load_as(self, kind: ir.Type, pointer: ir.Value, *terms: Term) -> ir.Value:
        """What is in memory, taken as that type."""
        return self.builder.load(self.address(pointer, *terms), align=4, typ=kind)

    def load(self, pointer: ir.Value, *terms: Term) -> ir.Value:
        """A vector from memory."""
        return self.load_as(self.vector, pointer, *terms)

    def store(self, value: ir.Value, pointer: ir.Value, *terms: Term) -> None:
        """Write a vector, or a number, to memory."""
        self.builder.store(value, self.address(pointer, *terms), align=4)

    def load_scalar(self, pointer: ir.Value, *terms: Term) -> ir.Value:
        """A single float32 from memory."""
        return self.load_as(FLOAT, pointer, *terms)

    def broadcast(self, number: ir.Value) -> ir.Value:
        """A vector of one number."""
        undefined = ir.Constant(self.vector_of(number.type), ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(WORD, 0))
        everywhere = ir.Constant(self.vector_of(WORD), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, everywhere)

    def fma(self, left: ir.Value, right: ir.Value, addend: ir.Value) -> ir.Value:
        """left * right + addend, of vectors, fused where the processor can."""
        return self.intrinsic("llvm.fmuladd", self.vector, left, right, addend)

    def larger(self, value: ir.Value, other: ir.Value) -> ir.Value:
        """The larger of two vectors' numbers; `value` where one is no number, so that it is not hidden."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, other), other, value)

    def largest(self, value: ir.Value, other: ir.Value) -> ir.Value:
        """The larger of two vectors' numbers; no number where either is none, which takes longer than `larger`."""
        return self.intrinsic("llvm.maximum", self.vector, value, other)

    def intrinsic(self, name: str, result: ir.VectorType, *vectors: ir.Value) -> ir.Value:
        """What one of LLVM's own functions, of the types that are given and asked for, makes of vectors."""
        kinds = [result] if all(vector.type == result for vector in vectors) else [result, vectors[0].type]
        return self._call(".".join([name, *map(_short, kinds)]), result, *vectors)

    def instruction(self, name: str, total: ir.Value, *vectors: ir.Value) -> ir.Value:
        """What an instruction that only some processors have adds to `total`."""
        return self._call(name, total.type, total, *vectors)

    def _call(self, name: str, result: ir.Type, *vectors: ir.Value) -> ir.Value:
        function = self._module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(result, [vector.type for vector in vectors])
            function = ir.Function(self._module, kind, name)
        return self.builder.call(function, vectors)


def integer(value: int) -> ir.Constant:
    """A constant."""
    return ir.Constant(INT, value)


def _short(kind: ir.VectorType) -> str:
    """As LLVM writes it in the names of its functions."""
    element = "f32" if kind.element == FLOAT else str(kind.element)
    return f"v{kind.count}{element}"
