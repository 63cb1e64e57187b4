from __future__ import annotations

import ctypes
import threading
from dataclasses import replace

import llvmlite.binding
import pytest

from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.compiled import processor
from service.engine.runtimes.compiled.processor import MachineCode, VectorUnit, compiled_code, host_vector_unit
from service.engine.runtimes.data_caches import host_caches

DOUBLE = """
define void @double(ptr %number) {
  %value = load float, ptr %number, align 4
  %twice = fadd float %value, %value
  store float %twice, ptr %number, align 4
  ret void
}
"""


def _call(code: MachineCode, function: str, value: float) -> float:
    number = ctypes.c_float(value)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address(function))(ctypes.addressof(number))
    return number.value


def test_compiled_code_is_loaded_and_runs() -> None:
    assert _call(MachineCode(compiled_code(DOUBLE)), "double", 21) == 42


def test_code_is_the_same_whenever_it_is_compiled() -> None:
    assert compiled_code(DOUBLE) == compiled_code(DOUBLE)


def test_programs_with_functions_of_one_name_are_apart() -> None:
    square = MachineCode(compiled_code(DOUBLE.replace("fadd", "fmul")))
    assert _call(square, "double", 5) == 25
    assert _call(MachineCode(compiled_code(DOUBLE)), "double", 5) == 10
    assert _call(square, "double", 6) == 36


def test_code_may_be_loaded_by_several_threads() -> None:
    code, answers = compiled_code(DOUBLE), []

    def load() -> None:
        answers.append(_call(MachineCode(code), "double", 3))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [6] * 4


def test_missing_function_is_refused() -> None:
    with pytest.raises(RuntimeUnavailable, match="the compiled network has no triple"):
        MachineCode(compiled_code(DOUBLE)).address("triple")


def test_what_is_not_llvms_language_is_told() -> None:
    with pytest.raises(RuntimeError, match="LLVM IR parsing error"):
        compiled_code("double the number")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx512f": True, "avx2": True, "fma": True}, VectorUnit(16, 32)),
        ({"avx512f": True, "avx512bf16": True, "avx512vnni": True}, VectorUnit(16, 32, bf16_dot=True, int8_dot=True)),
        ({"avx512f": True, "avx512bf16": False, "avx512vnni": True}, VectorUnit(16, 32, int8_dot=True)),
        ({"avx2": True, "fma": True, "avxvnni": True}, VectorUnit(8, 16)),
        ({"avx512f": False, "avx2": True, "fma": True}, VectorUnit(8, 16)),
        ({"avx2": True, "fma": False}, VectorUnit(4, 16)),
        ({"avx2": False, "fma": True}, VectorUnit(4, 16)),
        ({"sse2": True}, VectorUnit(4, 16)),
        ({"neon": True}, VectorUnit(4, 32)),
        ({}, VectorUnit(4, 16)),
    ],
)
def test_vectors_are_the_widest_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], expected: VectorUnit
) -> None:
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    assert host_vector_unit() == replace(expected, caches=host_caches())


def test_name_tells_the_versions() -> None:
    llvm, wrapper = processor.NAME.split(", ")
    assert llvm == f"llvm {processor.LLVM_VERSION}"
    assert wrapper == f"llvmlite {llvmlite.__version__}"
