"""Every kernel of every preset compiles for the architectures that are supported, and fits."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.engine.runtimes.cuda.device import packed_arguments

# Most memory that the threads of a program may share, in bytes (CUDA C++ Programming Guide, table 21).
_SHARED_BYTES = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448}
_CASES = [*((architecture, "fp16") for architecture in _SHARED_BYTES), (90, "bf16"), (90, "fp32")]
_MOST_REGISTERS = 255


@cache
def _kernels(root: Path) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """What each kernel needs, for each case; compiled two cases at a time."""

    def compiled(case: tuple[int, str]) -> list[dict[str, Any]]:
        architecture, precision = case
        module = "tests.service.engine.runtimes.cuda.compile_presets"
        command = [sys.executable, "-m", module, str(architecture), str(_SHARED_BYTES[architecture]), precision]
        environment = {**os.environ, "TRITON_CACHE_DIR": str(root / f"triton-{architecture}-{precision}")}
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert not done.returncode, done.stderr.decode()
        return [orjson.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(_CASES, pool.map(compiled, _CASES), strict=True))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"sm_{case[0]}-{case[1]}")
def test_every_kernel_of_every_preset_fits(case: tuple[int, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    kernels = _kernels(tmp_path_factory.getbasetemp())[case]
    assert {each["kernel"]["function"] for each in kernels} == {
        "load_images",
        "convolve",
        "max_pool",
        "decide",
        "average",
        "classify",
        "run_images",
    }
    for each in kernels:
        # In fp32 one program an image, and one convolution, need some bytes more than there are registers.
        spills = 32 if case[1] == "fp32" else 0
        assert each["stack"] <= spills, f"{each['kernel']} spills"
        assert each["registers"] <= _MOST_REGISTERS
        assert each["shared_bytes"] <= _SHARED_BYTES[case[0]], each["kernel"]


@pytest.mark.timeout(900)
def test_launches_pass_what_the_machine_code_takes(tmp_path_factory: pytest.TempPathFactory) -> None:
    for kernels in _kernels(tmp_path_factory.getbasetemp()).values():
        for each in kernels:
            types = [kind for _, kind in each["kernel"]["signature"]]
            passed, end = [], 0
            for number, value in enumerate(packed_arguments([1] * len(types), types)):
                size = ctypes.sizeof(value)
                begin = -(-end // size) * size
                passed.append([number, begin, size])
                end = begin + size
            assert each["parameters"] == passed, each["kernel"]["function"]
