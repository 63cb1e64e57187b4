"""Compile every kernel of every preset for an architecture, and say what each needs: a process of its own does this.

    python -m tests.service.engine.runtimes.cuda.compile_presets ARCHITECTURE SHARED_BYTES PRECISION

One line of JSON a kernel: its function, registers, bytes of stack, shared memory, and the offsets and sizes of its
parameters as the machine code has them.
"""

from __future__ import annotations

import os

os.environ.pop("TRITON_INTERPRET", None)  # which the tests set for themselves, see their package

import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import orjson
import triton

from models.config import PRESETS
from service.engine.runtimes.cuda.cubins import compile_kernel
from service.engine.runtimes.cuda.image_plan import IMAGE_CHANNELS, ImagePlan
from service.engine.runtimes.cuda.list_plan import IMAGE_CHANNELS as LIST_CHANNELS
from service.engine.runtimes.cuda.list_plan import ListPlan
from service.engine.runtimes.cuda.plan import ElementType, Kernel
from service.engine.runtimes.cuda.runtime import LARGEST_BATCH, batch_sizes
from tests.service.engine.runtimes.cuda.networks import empty_network

_TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
# Of one parameter, in what cuobjdump says of a kernel's attributes.
_PARAMETER = re.compile(r"Ordinal\s*:\s*0x([0-9a-f]+)\s*Offset\s*:\s*0x([0-9a-f]+)\s*Size\s*:\s*0x([0-9a-f]+)")


def kernels_of_presets(shared_bytes: int, element_type: ElementType) -> list[Kernel]:
    """Those of all batch sizes, each once."""
    found: dict[Kernel, None] = {}
    for name, config in PRESETS.items():
        common = config.preprocessing, 0.0, element_type, LARGEST_BATCH
        plans: list[ListPlan | ImagePlan] = [ListPlan(empty_network(name, LIST_CHANNELS), *common, shared_bytes)]
        if config.stem == "cifar":
            plans.append(ImagePlan(empty_network(name, IMAGE_CHANNELS), *common, 132))
        for plan in plans:
            for size in batch_sizes(LARGEST_BATCH):
                found |= dict.fromkeys(launch.kernel for launch in plan.launches(size))
    return list(found)


def needs(kernel: Kernel, architecture: int) -> dict[str, object]:
    """What its machine code needs."""
    cubin = compile_kernel(kernel, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin.code)
        file.flush()
        usage = _said(file.name, "-res-usage")
        found = _PARAMETER.findall(_said(file.name, "-elf"))
    parameters = sorted({tuple(int(part, 16) for part in each) for each in found})
    registers, stack = map(int, next(_USAGE.finditer(usage)).groups())
    return {
        "kernel": asdict(kernel),
        "registers": registers,
        "stack": stack,
        "shared_bytes": cubin.shared_bytes,
        "parameters": parameters,
    }


def _said(file: str, about: str) -> str:
    return subprocess.run([_TOOL, about, file], capture_output=True, text=True, check=True).stdout


def main(architecture: str, shared_bytes: str, element_type: ElementType) -> None:
    """Write a line for each."""
    for kernel in kernels_of_presets(int(shared_bytes), element_type):
        sys.stdout.buffer.write(orjson.dumps(needs(kernel, int(architecture))) + b"\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
