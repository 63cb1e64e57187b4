"""Runs a compiled network with a guard zone on each side of every buffer: to read or write beyond one is SIGSEGV.

python -m tests.service.engine.runtimes.compiled.guarded ARTIFACT PRECISION...

A buffer lies at the end of its pages, so that what comes after it faults, and in a second run at their begin, so that
what comes before does. What is left of the pages is filled with NaN, which must still be there afterwards. The answers
have to be those of the runtime, bit for bit.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from llvmlite import ir

from artifact.agreement import LogitsAndMargins
from artifact.manifest import Manifest, read_manifest
from artifact.preprocessing import Float32Array
from artifact.probes import read_probes
from service.engine.runtimes.base import Precision
from service.engine.runtimes.compiled import program as program_module
from service.engine.runtimes.compiled.buffers import Arena
from service.engine.runtimes.compiled.emitter import Emitter, Term
from service.engine.runtimes.compiled.executable import ALIGNMENT
from service.engine.runtimes.compiled.layout import Layout
from service.engine.runtimes.compiled.processor import MachineCode, compiled_code
from service.engine.runtimes.compiled.program import ENTRY
from service.engine.runtimes.compiled.runtime import CompiledRuntime, lowered, onnx_files
from service.engine.runtimes.machine_cache import MachineCache

_PAGE = mmap.PAGESIZE // 4  # in words
_NONE, _READ, _BOTH = 0, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class GuardedArena(Arena):
    """Reserves whole pages for each region, after a page that is a guard zone.

    Args:
        at_end: whether a region lies at the end of its pages, or at their begin.
        alignment: of regions, in bytes.

    Attributes:
        regions: offset and size of each, in words.
    """

    def __init__(self, at_end: bool, alignment: int = ALIGNMENT) -> None:
        super().__init__()
        self.regions: list[tuple[int, int]] = []
        self._at_end = at_end
        self._alignment = alignment // 4

    def reserve(self, size: int) -> int:
        """See `Arena.reserve`."""
        begin, pages = self.size + _PAGE, -(-size // _PAGE) * _PAGE
        self.size = begin + pages
        offset = begin + (pages - -(-size // self._alignment) * self._alignment if self._at_end else 0)
        self.regions.append((offset, size))
        return offset


class GuardedMemory:
    """The memory of an arena. Its regions are zero, and what is left of their pages is not a number.

    Args:
        arena: of which all regions are reserved.
        content: of the whole.
        writable: whether the regions may be written to.
    """

    def __init__(self, arena: GuardedArena, content: Float32Array | None = None, writable: bool = True) -> None:
        self._arena = arena
        self._map = mmap.mmap(-1, 4 * (arena.size + _PAGE))
        self.words = np.frombuffer(self._map, np.float32)
        self.words[:] = np.nan
        for offset, size in arena.regions:
            self.words[offset : offset + size] = 0 if content is None else content[offset : offset + size]
        self.address = self.words.ctypes.data
        self._protect(0, arena.size + _PAGE, _NONE)
        for offset, size in arena.regions:
            first = offset // _PAGE * _PAGE
            self._protect(first, -(-(offset + size - first) // _PAGE) * _PAGE, _BOTH if writable else _READ)

    @classmethod
    def of_one(cls, at_end: bool, content: Float32Array, writable: bool = True) -> GuardedMemory:
        """A single region with this content, aligned as numbers are."""
        arena = GuardedArena(at_end, alignment=4)
        offset = arena.reserve(content.size)
        memory = cls(arena, np.concatenate([np.zeros(offset, np.float32), content.ravel()]), writable)
        memory.address += 4 * offset
        return memory

    def region(self, number: int = 0) -> Float32Array:
        """A copy of a region."""
        offset, size = self._arena.regions[number]
        return self.words[offset : offset + size].copy()

    def assert_untouched_around(self) -> None:
        """What is left of the pages was not written to."""
        for offset, size in self._arena.regions:
            first, last = offset // _PAGE * _PAGE, -(-(offset + size) // _PAGE) * _PAGE
            assert np.isnan(self.words[first:offset]).all()
            assert np.isnan(self.words[offset + size : last]).all()

    def _protect(self, first: int, words: int, protection: int) -> None:
        if _libc.mprotect(self.words.ctypes.data + 4 * first, 4 * words, protection):
            raise OSError(ctypes.get_errno(), "mprotect")


class GuardedProgram:
    """An artifact's network in guarded memory."""

    def __init__(self, folder: Path, manifest: Manifest, precision: Precision, at_end: bool) -> None:
        arenas: list[GuardedArena] = []

        def arena() -> GuardedArena:
            arenas.append(GuardedArena(at_end))
            return arenas[-1]

        program_module.Arena = arena  # type: ignore[assignment,misc]  # this process runs nothing else
        program = lowered(onnx_files(folder, manifest, precision), manifest, precision)
        scratch, weights = arenas
        self._at_end = at_end
        self._counts = program.logits_count, program.margins_count
        self._scratch, self._weights = GuardedMemory(scratch), GuardedMemory(weights, program.weights(), writable=False)
        self._code = MachineCode(compiled_code(str(program.module)))

    def run(self, image: Float32Array, offset: float) -> LogitsAndMargins:
        """Logits and margins of one image."""
        pointer, at_end = ctypes.c_void_p, self._at_end
        function = ctypes.CFUNCTYPE(None, pointer, ctypes.c_float, *[pointer] * 4)(self._code.address(ENTRY))
        there = GuardedMemory.of_one(at_end, image, writable=False)
        answers = [GuardedMemory.of_one(at_end, np.zeros(max(count, 1), np.float32)) for count in self._counts]
        given = (self._weights, self._scratch, *answers)
        function(there.address, offset, *(memory.address for memory in given))
        for memory in (there, *given):
            memory.assert_untouched_around()
        logits, margins = (answer.region()[:count] for answer, count in zip(answers, self._counts, strict=True))
        return logits, margins


def check(folder: Path, precision: Precision, bug: Callable[[], None] | None = None) -> None:
    """Run the probes of an artifact with all gates as they come, open and closed, in both kinds of guarded memory.

    Args:
        folder: of the artifact.
        precision: of the convolutions.
        bug: puts a bug into what is compiled, which has to be found by a fault, whatever the answers.
    """
    manifest = read_manifest(folder)
    images = read_probes(folder, manifest).images[:2]
    runtime = CompiledRuntime(folder, manifest, MachineCache([], manifest), precision)
    if bug:
        bug()
    for at_end in (True, False):
        print(f"{precision}, at the {'end' if at_end else 'begin'} of pages", flush=True)
        program = GuardedProgram(folder, manifest, precision, at_end)
        for offset in (0.0, 1e4, -1e4):
            for image in images:
                found, expected = program.run(image, offset), runtime.run(image[None], np.full(1, offset, np.float32))
                for one, other in zip(found, expected, strict=True):
                    assert bug or np.array_equal(one, other[0])


def _shift_start(pixels: int) -> None:
    start = Layout.start
    Layout.start = lambda layout, reach=0: start(layout, reach) + pixels * layout.pixel  # type: ignore[method-assign]


def _shift_stores(vectors: int) -> None:
    store = Emitter.store

    def shifted(emit: Emitter, value: ir.Value, pointer: ir.Value, *terms: Term) -> None:
        store(emit, value, pointer, *terms, vectors * emit.lanes)

    Emitter.store = shifted  # type: ignore[method-assign]


# What the mode itself is tested with: offsets that are wrong on purpose.
BUGS: dict[str, Callable[[], None]] = {
    "read before": lambda: _shift_start(-1),
    "read beyond": lambda: _shift_start(1),
    "write before": lambda: _shift_stores(-1),
    "write beyond": lambda: _shift_stores(1),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("precisions", nargs="+")
    parser.add_argument("--bug", choices=list(BUGS))
    arguments = parser.parse_args()
    for precision in arguments.precisions:
        check(arguments.artifact, precision, BUGS.get(arguments.bug))


if __name__ == "__main__":
    main()
