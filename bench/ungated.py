"""The rivals: the ungated network in each library that might run it fastest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from artifact.manifest import INPUT_NAMES, OUTPUT_NAMES, read_manifest
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Precision
from service.engine.runtimes.compiled.runtime import CompiledRuntime
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.onnx import open_session

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


def onnx_ungated(model: Path, image: Float32Array) -> Callable[[], object]:
    """A run of ONNX Runtime on one thread, with everything it does by default."""
    session = open_session(model)
    return lambda: session.run(OUTPUT_NAMES[:1], {INPUT_NAMES[0]: image})


def openvino_ungated(model: Path, image: Float32Array, precision: Precision) -> Callable[[], object]:
    """A run of OpenVINO on one thread, with shapes fixed, as it likes them best.

    Raises:
        RuntimeUnavailable: OpenVINO is not installed, or the processor lacks the precision.
    """
    try:
        import openvino
    except ImportError as error:
        raise RuntimeUnavailable("OpenVINO is not installed") from error
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeUnavailable("this processor has no bf16 arithmetic")
    network = core.read_model(model)
    network.reshape(list(image.shape))
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": _HINTS[precision]}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(image))

    def run() -> None:
        request.infer()

    return run


def compiled_ungated(folder: Path, image: Float32Array, precision: Precision) -> Callable[[], object]:
    """A run of this project's own machine code, for the artifact of a network without gates.

    Raises:
        RuntimeUnavailable: the processor lacks the precision.
    """
    manifest = read_manifest(folder)
    runtime = CompiledRuntime(folder, manifest, MachineCache([], manifest), precision)
    offset = np.zeros(1, np.float32)
    return lambda: runtime.run(image, offset)
