"""Kernels compiled by all cores at once, and kept for the next run and for the service."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from artifact.cores import usable_cores
from artifact.manifest import read_manifest
from service.engine.runtimes.cuda.cubins import Cubin, kept_cubins
from service.engine.runtimes.cuda.plan import Kernel
from service.engine.runtimes.cuda.runtime import Compile
from service.engine.runtimes.machine_cache import MachineCache, machine_cache


def compiling(model: Path, folder: Path) -> Compile:
    """What compiles kernels, kept in a folder as the service keeps those of a model."""
    return partial(_compiled, cache=machine_cache(model, read_manifest(model), folder), folder=folder)


def _compiled(kernels: Sequence[Kernel], architecture: int, cache: MachineCache, folder: Path) -> dict[Kernel, Cubin]:
    wanted = list(dict.fromkeys(kernels))
    digest = hashlib.sha256(f"{architecture} {sorted(map(repr, wanted))}".encode()).hexdigest()
    mark = folder / f"compiled-{digest[:16]}"  # saves the start of the processes
    if not mark.exists() and len(wanted) > 1:
        cores = min(usable_cores(), len(wanted))
        with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
            list(pool.map(partial(_keep, architecture, cache), wanted))
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return kept_cubins(wanted, architecture, cache)


def _keep(architecture: int, cache: MachineCache, kernel: Kernel) -> None:
    kept_cubins([kernel], architecture, cache)
