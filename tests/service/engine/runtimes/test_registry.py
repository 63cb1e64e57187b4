from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from service.engine.runtimes import selection
from service.engine.runtimes.base import PRECISIONS, Device, Model, Precision, Runtime, RuntimeName
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.registry import RUNTIMES, RuntimeKind
from service.engine.runtimes.selection import open_runtime
from tests.service.engine.runtimes.artifacts import Exported


def test_every_runtime_can_be_asked_for_and_no_other() -> None:
    assert get_args(RuntimeName) == ("auto", *RUNTIMES)


@pytest.mark.parametrize("kind", RUNTIMES.values(), ids=lambda kind: kind.name)
def test_runtime_names_devices_and_precisions_that_there_are(kind: RuntimeKind) -> None:
    assert kind.devices
    assert set(kind.devices) <= set(get_args(Device)) - {"auto"}
    assert list(kind.precisions) == [precision for precision in PRECISIONS if precision in kind.precisions]
    assert kind.precisions
    module = find_spec(kind.module)  # not imported: its library need not be installed
    assert module is not None
    assert module.origin is not None
    assert "\ndef open_model(" in Path(module.origin).read_text(encoding="utf-8")


def test_runtimes_libraries_are_not_imported_before_one_is_opened() -> None:
    libraries = ("llvmlite", "onnx", "onnxruntime", "openvino", "torch")
    program = f"""
import sys
import service.engine.runtimes.selection, service.settings
print([library for library in {libraries!r} if library in sys.modules])
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout == "[]\n"


@pytest.mark.parametrize(
    ("lowest", "allowed"), [("fp32", ("fp32",)), ("bf16", ("fp32", "bf16")), ("int8", ("fp32", "bf16"))]
)
def test_precisions_below_the_lowest_are_not_allowed(lowest: Precision, allowed: tuple[Precision, ...]) -> None:
    assert RUNTIMES["openvino"].allowed(lowest) == allowed


def test_new_runtime_is_a_module_and_a_line(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("tests.another")
    opened: list[tuple[Device, Precision]] = []

    def open_model(model: Model, device: Device, precision: Precision) -> Runtime:
        opened.append((device, precision))
        runtime = OnnxRuntime(model.folder, model.manifest, "cpu")
        runtime.name = "another 1"
        return runtime

    monkeypatch.setattr(module, "open_model", open_model, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    name: RuntimeName = "another"  # type: ignore[assignment]
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    monkeypatch.setitem(RUNTIMES, name, RuntimeKind(name, module.__name__, ("cpu",), ("fp32",)))
    assert open_runtime(exported.folder, name, "cpu", "int8", tmp_path).name == "another 1"
    chosen_from = open_runtime(exported.folder, "auto", "cpu", "fp32", tmp_path).candidates
    assert [candidate.problem for candidate in chosen_from if candidate.runtime == name] == [None]
    assert opened == [("cpu", "fp32")] * 2
