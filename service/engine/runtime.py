"""What the engine needs of a runtime, and opening the right one for an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from artifact.manifest import Manifest, read_manifest
from artifact.preprocessing import Float32Array

Device = Literal["auto", "cpu", "cuda"]
RuntimeName = Literal["onnx", "torchscript"]


class Runtime(Protocol):
    """A model that is ready to run. `run` may be called from several threads at once.

    Attributes:
        name: of the library that runs it, with its version.
        device: "cpu" or "cuda".
        manifest: of the model.
    """

    name: str
    device: str
    manifest: Manifest

    def run(self, images: Float32Array, gate_offset: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Classify images (N, 3, H, W) with gate offsets (N,); return logits (N, classes) and margins (N, G)."""


def open_runtime(folder: Path, runtime: RuntimeName = "onnx", device: Device = "auto") -> Runtime:
    """Open the artifact in `folder`.

    Args:
        folder: of the artifact.
        runtime: the library to run it with.
        device: "auto" takes CUDA where it works, else the CPU.

    Raises:
        ArtifactError: the artifact is missing or damaged.
        RuntimeUnavailable: the library or the device is not there, or cannot run this model.
    """
    manifest = read_manifest(folder)
    # Imported here because a serving install has only one of the two libraries.
    if runtime == "torchscript":
        from service.engine.torchscript_runtime import TorchScriptRuntime

        return TorchScriptRuntime(folder, manifest, device)
    from service.engine.onnx_runtime import OnnxRuntime

    return OnnxRuntime(folder, manifest, device)
