"""Who takes part in `bench.skipping`: the runtimes of the gated network, and the ungated network in every library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from artifact.manifest import INT8_NAME, ONNX_NAME, Manifest
from artifact.preprocessing import Float32Array
from bench.ungated import compiled_ungated, onnx_ungated, openvino_ungated
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Precision, Runtime
from service.engine.runtimes.compiled.runtime import CompiledRuntime
from service.engine.runtimes.int8 import Int8Runtime
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.registry import RUNTIMES

YARDSTICK = "ONNX Runtime ungated"
# What gated networks are served with. In fp32 it has to meet the targets.
OURS = "compiled"
JUDGED = f"{OURS} fp32"

PRECISIONS: tuple[Precision, ...] = RUNTIMES["compiled"].precisions
"""Those of CPUs, from the highest down."""


def rivals(plain: Path, image: Float32Array) -> dict[str, tuple[Precision, Callable[[], object]]]:
    """The network without gates in every library, with the precision of each."""
    found: dict[str, tuple[Precision, Callable[[], object]]] = {
        YARDSTICK: ("fp32", onnx_ungated(plain / ONNX_NAME, image)),
        "ONNX Runtime int8 ungated": ("int8", onnx_ungated(plain / INT8_NAME, image)),
    }

    def add(library: str, precision: Precision, opened: Callable[[], Callable[[], object]]) -> None:
        with _left_out_where_unavailable():
            found[f"{library} {precision} ungated"] = precision, opened()

    for precision in PRECISIONS:
        add(OURS, precision, partial(compiled_ungated, plain, image, precision))
    for precision in PRECISIONS[:2]:
        add("OpenVINO", precision, partial(openvino_ungated, plain / ONNX_NAME, image, precision))
    return found


def gated_runtimes(folder: Path, manifest: Manifest) -> dict[str, Runtime]:
    """Everything that runs the gated network on a CPU."""
    runtimes: dict[str, Runtime] = {
        "portable": OnnxRuntime(folder, manifest, "cpu"),
        "ONNX Runtime int8": Int8Runtime(folder, manifest),
        **compiled_runtimes(folder, manifest),
    }
    for precision in PRECISIONS[:2]:
        with _left_out_where_unavailable():
            from service.engine.runtimes.openvino import OpenVinoRuntime  # raises where that is not installed

            runtimes[f"OpenVINO {precision}"] = OpenVinoRuntime(folder, manifest, precision)
    return runtimes


def compiled_runtimes(folder: Path, manifest: Manifest) -> dict[str, Runtime]:
    """The compiled network in every precision that this processor has, from the highest down."""
    runtimes: dict[str, Runtime] = {}
    for precision in PRECISIONS:
        with _left_out_where_unavailable():
            runtime = CompiledRuntime(folder, manifest, MachineCache([], manifest), precision)
            runtimes[f"{OURS} {precision}"] = runtime
    return runtimes


@contextmanager
def _left_out_where_unavailable() -> Iterator[None]:
    try:
        yield
    except RuntimeUnavailable as error:
        print(f"left out: {error}")
