"""ONNX Runtime: the model's graph with its branches, on a GPU or on CPU cores."""

from __future__ import annotations

from pathlib import Path

from artifact.manifest import INPUT_NAMES, ONNX_NAME, OUTPUT_NAMES, Manifest, verified_file
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable

try:
    import onnxruntime
except ImportError as error:
    raise RuntimeUnavailable("the onnx runtime needs ONNX Runtime, which is not installed") from error

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxRuntime:
    """One session for all threads. On the CPU each run stays on its caller's thread: the engine has one per core."""

    def __init__(self, folder: Path, manifest: Manifest, device: str = "auto") -> None:
        path = verified_file(folder, manifest, ONNX_NAME)
        self.manifest = manifest
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._session = _open_session(path, _providers(device))
        self.device = "cuda" if _CUDA in self._session.get_providers() else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise RuntimeUnavailable("ONNX Runtime fell back to the CPU: its CUDA libraries could not be loaded")

    def run(self, images: Float32Array, gate_offset: Float32Array) -> tuple[Float32Array, Float32Array]:
        """See `Runtime.run`."""
        inputs = dict(zip(INPUT_NAMES, (images, gate_offset), strict=True))
        logits, margins = self._session.run(OUTPUT_NAMES, inputs)
        return logits, margins


def _providers(device: str) -> list[str]:
    cuda_present = _CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not cuda_present:
        raise RuntimeUnavailable("this ONNX Runtime has no CUDA; install the gpu extra instead of the cpu one")
    if device == "cpu" or not cuda_present:
        return [_CPU]
    onnxruntime.preload_dlls()  # finds the CUDA libraries that were installed as Python packages
    return [_CUDA, _CPU]


def _open_session(path: Path, providers: list[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Only errors: it warns that the gate offset's default can be overridden, which is what the default is for.
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its exceptions share no public base class
        raise RuntimeUnavailable(f"ONNX Runtime cannot open {path}: {error}") from error
