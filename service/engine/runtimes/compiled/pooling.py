"""The largest of neighbouring pixels."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from service.engine.runtimes.compiled.emitter import POINTER, Emitter
from service.engine.runtimes.compiled.executable import ALIGNMENT
from service.engine.runtimes.compiled.layout import Layout
from service.engine.runtimes.compiled.processor import VectorUnit


@dataclass(frozen=True)
class MaxPool:
    """What a kernel does; what is pooled must not be negative, because the border counts as zero.

    Attributes:
        kernel, stride, padding: in pixels, the same both ways.
        source, target: layouts of input and output, of the same element type.
    """

    kernel: int
    stride: int
    padding: int
    source: Layout
    target: Layout


def emit_max_pool(module: ir.Module, name: str, pool: MaxPool, vectors: VectorUnit) -> ir.Function:
    """Add the kernel: a function of the addresses of input, output, and the sums of the output over all pixels."""
    source, target = pool.source, pool.target
    emit = Emitter(module, name, [POINTER] * 3, vectors)
    inputs, outputs, sums = emit.function.args
    # Each is a region of its own in the arena, and aligned as all of its regions are.
    emit.promise(inputs, "noalias", "readonly", alignment=ALIGNMENT)
    emit.promise(outputs, "noalias", alignment=ALIGNMENT)
    emit.promise(sums, "noalias", alignment=ALIGNMENT)

    def channels(block: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        def row(index: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            return emit.loop(target.width, lambda column, totals: pixel(index, column, totals), totals)

        def pixel(row: ir.Value, column: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            window = emit.address(
                inputs,
                source.start(pool.padding),
                (block, source.block),
                (row, pool.stride * source.row),
                (column, pool.stride * source.pixel),
            )
            largest = emit.zero
            element_type = target.element_type
            for down in range(pool.kernel):
                for right in range(pool.kernel):
                    largest = emit.largest(
                        element_type.load(emit, window, down * source.row + right * source.pixel), largest
                    )
            place = target.start(), (block, target.block), (row, target.row), (column, target.pixel)
            element_type.store(emit, largest, outputs, *place)
            return [emit.builder.fadd(totals[0], largest)]

        (total,) = emit.loop(target.height, row, [emit.zero])
        emit.store(total, sums, (block, target.lanes))
        return []

    emit.loop(target.blocks, channels)
    emit.end()
    return emit.function
