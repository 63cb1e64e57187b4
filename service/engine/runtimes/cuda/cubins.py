"""Kernels compiled to machine code for one architecture. Neither a GPU nor a C compiler is needed for that."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.cuda.plan import Kernel
from service.engine.runtimes.machine_cache import MachineCache

try:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from service.engine.runtimes.cuda import image_kernel, kernels
except ImportError as error:
    raise RuntimeUnavailable("the cuda runtime needs Triton, which is not installed") from error

_log = logging.getLogger(__name__)

_WARP = 32


@dataclass(frozen=True)
class Cubin:
    """Machine code of a kernel.

    Attributes:
        entry: name of the function in it.
        threads: of a program.
        shared_bytes: memory that the threads of a program share, in bytes.
        code: the file that the driver loads.
    """

    entry: str
    threads: int
    shared_bytes: int
    code: bytes


def compile_kernel(kernel: Kernel, architecture: int) -> Cubin:
    """Compile a kernel.

    Args:
        kernel: to compile.
        architecture: such as 90 for sm_90.

    Raises:
        RuntimeUnavailable: Triton cannot compile it for that.
    """
    module = image_kernel if hasattr(image_kernel, kernel.function) else kernels
    function = getattr(module, kernel.function)
    types, constants = dict(kernel.signature), dict(kernel.constants)
    signature = {name: types.get(name, "constexpr") for name in function.arg_names}
    if {*types, *constants} != {*function.arg_names}:
        raise ValueError(f"{kernel.function} has other parameters")
    # All addresses are multiples of that, see `plan`.
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(function.arg_names)
        if types.get(name, "").startswith("*") and name not in ("count", "queue")
    }
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": kernel.warps, "num_stages": kernel.stages}
    try:
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, _WARP), options=options)
    except Exception as error:  # its compiler's and ptxas's, of no common class
        raise RuntimeUnavailable(f"{kernel.function} cannot be compiled for sm_{architecture}: {error}") from error
    metadata = compiled.metadata
    if metadata.global_scratch_size or metadata.profile_scratch_size:
        raise RuntimeUnavailable(f"{kernel.function} wants memory for itself, which it is not given")
    return Cubin(metadata.name, _WARP * metadata.num_warps, metadata.shared, compiled.asm["cubin"])


def kept_cubins(kernels_: Iterable[Kernel], architecture: int, cache: MachineCache) -> dict[Kernel, Cubin]:
    """The machine code of kernels, compiled where it is not kept.

    Raises:
        RuntimeUnavailable: see `compile_kernel`.
    """
    wanted = list(dict.fromkeys(kernels_))
    found: dict[Kernel, Cubin] = {}
    for kernel in wanted:
        name = f"sm_{architecture}-{_digest(kernel)}.cubin"
        cubin = _read(cache.read(name))
        if cubin is None:
            _log.info("compiling kernel %d of %d for sm_%d", len(found) + 1, len(wanted), architecture)
            cubin = compile_kernel(kernel, architecture)
            head = orjson.dumps([cubin.entry, cubin.threads, cubin.shared_bytes])
            cache.write(name, head + b"\n" + cubin.code)
        found[kernel] = cubin
    return found


def _read(content: bytes | None) -> Cubin | None:
    if content is None:
        return None
    head, _, code = content.partition(b"\n")
    entry, threads, shared_bytes = orjson.loads(head)
    return Cubin(entry, threads, shared_bytes, code)


def _digest(kernel: Kernel) -> str:
    """Of all that a kernel's code depends on."""
    module = image_kernel if hasattr(image_kernel, kernel.function) else kernels
    told = f"{triton.__version__} {getattr(module, kernel.function).cache_key} {kernel}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]
