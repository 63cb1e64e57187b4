from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("module", ["service.engine.runtimes.onnx", "service.engine.runtimes.int8", "export.parity"])
def test_onnx_runtime_is_told_not_to_report_before_it_is_imported(module: str) -> None:
    program = f"""
import builtins, os, sys
imported = builtins.__import__
def watched(name, *arguments, **named):
    if name.partition(".")[0] == "onnxruntime" and "onnxruntime" not in sys.modules:
        print(os.environ.get("ORT_DISABLE_TELEMETRY"))
    return imported(name, *arguments, **named)
builtins.__import__ = watched
import {module}
"""
    unset = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=unset, capture_output=True, text=True
    )
    assert finished.stdout.splitlines()[:1] == ["1"], finished.stderr
