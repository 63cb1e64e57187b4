"""ONNX Runtime with the portable graph as it was exported, on a GPU or on CPU cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from artifact.agreement import LogitsAndMargins
from artifact.manifest import INPUT_NAMES, ONNX_NAME, OUTPUT_NAMES, Manifest
from artifact.onnx_options import configure
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable, device_error
from service.engine.runtimes.base import Candidate, Device, Model, Precision
from service.engine.runtimes.onnx_file import verified_onnx_file

try:
    import onnxruntime
except ImportError as error:
    raise RuntimeUnavailable("the onnx runtime needs ONNX Runtime, which is not installed") from error

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_MEMORY = "cuda"
_ON_GPU = {
    # By default products on a GPU are of TF32, which has 10 bits where fp32 has 23.
    "use_tf32": "0",
    # A search tries every algorithm whenever a shape is new, and gates make new shapes all the time.
    "cudnn_conv_algo_search": "HEURISTIC",
    # Memory is taken as it is needed. By default each step doubles it, and what is taken is never given back.
    "arena_extend_strategy": "kSameAsRequested",
    # In bytes; by default one model may take all that there is. A batch for which this is too little is run in halves.
    "gpu_mem_limit": str(8 << 30),
}
Provider = str | tuple[str, dict[str, str]]
"""The name of one of ONNX Runtime's devices, perhaps with settings."""


class OnnxRuntime:
    """One session for all threads. On the CPU each run stays on its caller's thread: the engine has one per core."""

    precision: Precision = "fp32"
    runs_batches = True
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, folder: Path, manifest: Manifest, device: str = "auto") -> None:
        path = verified_onnx_file(folder, manifest, ONNX_NAME)
        self.manifest = manifest
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._session = open_session(path, _providers(device))
        self.device = "cuda" if _CUDA in self._session.get_providers() else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise RuntimeUnavailable(
                "no GPU can be used: ONNX Runtime could not load CUDA, and its own message says why"
            )

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        inputs = dict(zip(INPUT_NAMES, (images, gate_offset), strict=True))
        if self.device == "cpu":
            logits, margins = self._session.run(OUTPUT_NAMES, inputs)
            return logits, margins
        try:
            logits, margins = self._bound(inputs)
        except Exception as error:  # its exceptions share no public base class
            raise device_error(error) from error
        return logits, margins

    def _bound(self, inputs: Mapping[str, Float32Array]) -> list[Float32Array]:
        """Run what lies on the device. Unlike `run` of the session, this never tries the CPU where the device fails."""
        binding = self._session.io_binding()
        for name, values in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(values, _MEMORY, 0))
        for name in OUTPUT_NAMES:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        outputs: list[Float32Array] = binding.copy_outputs_to_cpu()
        return outputs


def open_model(model: Model, device: Device, _: Precision) -> OnnxRuntime:
    """See `RuntimeKind.open`."""
    return OnnxRuntime(model.folder, model.manifest, device)


def run_one_by_one(
    session: onnxruntime.InferenceSession, images: Float32Array, gate_offset: Float32Array
) -> LogitsAndMargins:
    """`Runtime.run` with a graph that takes a single image."""
    if len(images) > 1:
        answers = [
            run_one_by_one(session, images[row : row + 1], gate_offset[row : row + 1]) for row in range(len(images))
        ]
        logits, margins = (np.concatenate(outputs) for outputs in zip(*answers, strict=True))
    else:
        inputs = dict(zip(INPUT_NAMES, (images, gate_offset), strict=True))
        logits, margins = session.run(OUTPUT_NAMES, inputs)
    return logits, margins


def cuda_present() -> bool:
    """Whether this ONNX Runtime was built for CUDA."""
    return _CUDA in onnxruntime.get_available_providers()


def _providers(device: str) -> list[Provider]:
    if device == "cuda" and not cuda_present():
        raise RuntimeUnavailable("this ONNX Runtime has no CUDA; install the gpu extra instead of the cpu one")
    if device == "cpu" or not cuda_present():
        return [_CPU]
    onnxruntime.preload_dlls()  # finds the CUDA libraries that were installed as Python packages
    return [(_CUDA, dict(_ON_GPU)), _CPU]


def open_session(
    model: Path, providers: Sequence[Provider] = (_CPU,), optimisation: str = "ORT_ENABLE_ALL"
) -> onnxruntime.InferenceSession:
    """Open a model so that each run stays on its caller's thread.

    Raises:
        RuntimeUnavailable: it cannot be opened.
    """
    options = onnxruntime.SessionOptions()
    configure(options)
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, optimisation)
    try:
        return onnxruntime.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # its exceptions share no public base class
        raise RuntimeUnavailable(f"ONNX Runtime cannot open {model}: {error}") from error
