"""The processor at hand, as LLVM knows it: its vectors, and machine code made for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Precision
from service.engine.runtimes.data_caches import USUAL_CACHES, Caches, host_caches

try:
    import llvmlite
    import llvmlite.binding as llvm
except ImportError as error:
    raise RuntimeUnavailable("the compiled runtime needs llvmlite, which is not installed") from error

# Where there are more registers than this, LLVM, left to order instructions anew, loads so much ahead for some
# processors that even these run out. Where there are not, its order is some hundredths faster.
_MOST_IN_ORDER = 16
LLVM_VERSION = ".".join(map(str, llvm.llvm_version_info))


@dataclass(frozen=True)
class VectorUnit:
    """The vector unit.

    Attributes:
        lanes: float32 numbers in a vector.
        registers: vectors it holds.
        bf16_dot: whether it has dot products of pairs of bfloat16, and converts to it.
        int8_dot: whether it has dot products of four 8-bit integers.
        caches: what its loads and stores go through.
    """

    lanes: int
    registers: int
    bf16_dot: bool = False
    int8_dot: bool = False
    caches: Caches = USUAL_CACHES

    def require_bf16(self, lanes: int | None = None) -> None:
        """Return where instructions for bfloat16 may be emitted, for vectors of so many lanes if that is asked.

        Raises:
            RuntimeUnavailable: the processor has none.
        """
        self._require(self.bf16_dot, "bf16", lanes)

    def require_int8(self, lanes: int | None = None) -> None:
        """The same for products of 8 bits.

        Raises:
            RuntimeUnavailable: the processor has none.
        """
        self._require(self.int8_dot, "int8", lanes)

    def _require(self, has: bool, precision: Precision, lanes: int | None) -> None:
        if not has:
            raise RuntimeUnavailable(f"this processor has no {precision} arithmetic in vectors of 512 bits")
        if lanes not in (None, self.lanes):
            raise RuntimeUnavailable(f"{precision} is multiplied in vectors of {lanes} lanes, not of {self.lanes}")


class MachineCode:
    """Object code in this process's memory. It stays there for as long as this object lives.

    Args:
        code: made by `compiled_code` on this machine.
    """

    def __init__(self, code: bytes) -> None:
        _initialise()
        # An engine has to be made of a module, for which an empty one will do.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, function: str) -> int:
        """Where a function begins.

        Raises:
            RuntimeUnavailable: there is no such function in it.
        """
        address: int = self._engine.get_function_address(function)
        if not address:
            raise RuntimeUnavailable(f"the compiled network has no {function}")
        return address


def host_vector_unit() -> VectorUnit:
    """The widest vectors of this processor, and its caches."""
    features, caches = llvm.get_host_cpu_features(), host_caches()
    if features.get("avx512f"):
        return VectorUnit(16, 32, bool(features.get("avx512bf16")), bool(features.get("avx512vnni")), caches)
    if features.get("avx2") and features.get("fma"):
        return VectorUnit(lanes=8, registers=16, caches=caches)
    return VectorUnit(lanes=4, registers=32 if features.get("neon") else 16, caches=caches)


def require(precision: Precision) -> None:
    """Return where this processor has instructions for products in such a precision.

    Raises:
        RuntimeUnavailable: it has none.
    """
    here = host_vector_unit()
    if precision == "bf16":
        here.require_bf16()
    elif precision == "int8":
        here.require_int8()


def compiled_code(assembly: str) -> bytes:
    """Object code for this processor.

    Args:
        assembly: a module in LLVM's language.
    """
    _initialise()
    module = llvm.parse_assembly(assembly)
    module.verify()
    # What LLVM does before it chooses instructions is left out: the kernels leave it nothing to gain, and it would take
    # as long again.
    return bytes(_target_machine().emit_object(module))


def instructions(assembly: str) -> str:
    """The instructions that `compiled_code` makes of a module, as text."""
    _initialise()
    return str(_target_machine().emit_assembly(llvm.parse_assembly(assembly)))


@cache
def _initialise() -> None:
    """Load what LLVM knows of this processor, once."""
    if host_vector_unit().registers > _MOST_IN_ORDER:
        llvm.set_option("convnet-aig", "-enable-misched=false")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _target_machine() -> llvm.TargetMachine:
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="jitdefault", jit=True
    )


NAME = f"llvm {LLVM_VERSION}, llvmlite {llvmlite.__version__}"
