"""What the engine needs of a runtime, and opening the right one for an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Protocol

from artifact.agreement import LogitsAndMargins
from artifact.manifest import Manifest, read_manifest
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable

Device = Literal["auto", "cpu", "cuda"]
RuntimeName = Literal["auto", "onnx", "compiled", "openvino", "int8", "torchscript"]
Precision = Literal["fp32", "bf16", "int8"]  # from the highest down


@dataclass(frozen=True)
class Candidate:
    """A runtime that was tried for the model on this machine.

    Attributes:
        runtime: what to ask for to have it.
        precision: of its convolutions.
        image_ms: median time of one of the model's probes on one thread; None where it could not be used.
        problem: why it could not be used.
    """

    runtime: RuntimeName
    precision: Precision
    image_ms: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class RuntimeDescription:
    """How a model is run; the attributes are those of `Runtime`."""

    name: str
    device: str
    precision: Precision
    candidates: tuple[Candidate, ...] = ()


class Runtime(Protocol):
    """A model that is ready to run. `run` may be called from several threads at once.

    Attributes:
        name: of the library that runs it, with its version.
        device: "cpu" or "cuda".
        precision: of the convolutions; gates are in fp32 always.
        runs_batches: whether the images of a batch run together; otherwise one after the other.
        manifest: of the model.
        candidates: what it was chosen from; empty where it was asked for.
    """

    name: str
    device: str
    precision: Precision
    runs_batches: bool
    manifest: Manifest
    candidates: tuple[Candidate, ...]

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """Classify images (N, 3, H, W) with gate offsets (N,); return logits (N, classes) and margins (N, G)."""


def description(runtime: Runtime) -> RuntimeDescription:
    """How a runtime runs its model."""
    return RuntimeDescription(runtime.name, runtime.device, runtime.precision, runtime.candidates)


def open_runtime(
    folder: Path,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    cache_folder: Path | None = None,
) -> Runtime:
    """Open the artifact in `folder`.

    Args:
        folder: of the artifact.
        runtime: the library to run it with; "auto" takes the fastest that proves right on this machine.
        device: "auto" takes CUDA where it works, else the CPU.
        precision: the lowest allowed.
        cache_folder: where to keep what is made for this machine; by default beside the model, or in the user's cache.

    Raises:
        ArtifactError: the artifact is missing or damaged.
        RuntimeUnavailable: the library or the device is not there, or cannot run this model.
    """
    manifest = read_manifest(folder)
    if device == "cuda" and runtime in ("compiled", "openvino", "int8"):
        raise RuntimeUnavailable(f"the {runtime} runtime is for CPUs, not for CUDA")
    # Imported here because a serving install has only some of the libraries.
    if runtime == "torchscript":
        from service.engine.runtimes.torchscript import TorchScriptRuntime

        return TorchScriptRuntime(folder, manifest, device)
    # ONNX Runtime for CPUs is not even imported where another runtime was found to be faster.
    if runtime == "onnx" or device == "cuda" or (runtime == "auto" and device == "auto" and _made_for_gpus()):
        from service.engine.runtimes.onnx import OnnxRuntime

        opened = OnnxRuntime(folder, manifest, device)
        if runtime == "onnx" or opened.device == "cuda":
            return opened
    from service.engine.runtimes.selection import open_on_cpu

    return open_on_cpu(folder, manifest, runtime, precision, cache_folder)


def _made_for_gpus() -> bool:
    """Whether the ONNX Runtime that is installed is one for GPUs."""
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True
