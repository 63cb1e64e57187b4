"""Kept programs whose digest is right and whose machine code is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm

from artifact.manifest import read_manifest
from service.engine.runtimes.compiled.executable import Executable
from service.engine.runtimes.machine_cache import MachineCache

_UNDEFINED = {"x86_64": b"\x0f\x0b", "aarch64": b"\x00\x00\x00\x00"}  # ud2, udf


def trapping(program: Executable) -> Executable:
    """The program with an instruction that no processor has at the begin of its code, which is the whole network's."""
    sections = llvm.ObjectFileRef.from_data(program.code).sections()
    text = max((section.data() for section in sections if section.is_text()), key=len)
    begin = program.code.index(text)
    trap = _UNDEFINED[llvm.get_process_triple().split("-")[0]]
    return replace(program, code=program.code[:begin] + trap + program.code[begin + len(trap) :])


def keep_trapping(folder: Path, cache_folder: Path, file: str = "compiled-fp32.bin") -> None:
    """Replace what was kept of an artifact by a program that traps."""
    cache = MachineCache([cache_folder], read_manifest(folder))
    content = cache.read(file)
    assert content is not None
    cache.write(file, trapping(Executable.from_bytes(content)).to_bytes())
