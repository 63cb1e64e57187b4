"""What the engine needs of a runtime, and what a runtime needs to be opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

from artifact.agreement import LogitsAndMargins
from artifact.manifest import MANIFEST_NAME, Manifest, read_manifest, verified_file
from artifact.preprocessing import Float32Array
from service.engine.runtimes.machine_cache import MachineCache

Device = Literal["auto", "cpu", "cuda"]
RuntimeName = Literal["auto", "cuda", "onnx", "compiled", "openvino", "int8", "torchscript"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]  # from the highest down
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Model:
    """An exported model on this machine.

    Attributes:
        folder: of the artifact.
        manifest: of the artifact.
        cache: where what is made of it for this machine is kept.
    """

    folder: Path
    manifest: Manifest
    cache: MachineCache

    def members(self) -> list[Model]:
        """The networks of a cascade; none of a single network.

        Raises:
            ArtifactError: one of them is missing or not what was exported.
        """
        found = []
        for member in self.manifest.members:
            path = verified_file(self.folder, self.manifest, f"{member.folder}/{MANIFEST_NAME}")
            manifest = read_manifest(path.parent)
            found.append(Model(path.parent, manifest, self.cache.of(manifest)))
        return found


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


@runtime_checkable
class Closing(Protocol):
    """A runtime that holds what others could use."""

    def close(self) -> None:
        """Give it back; nothing can be run any more."""


@runtime_checkable
class DeviceRuntime(Closing, Protocol):
    """A runtime on a device that copies images by itself, from where they lie.

    Attributes:
        largest: most images in a batch.
    """

    largest: int

    def run_parts(self, parts: Sequence[npt.NDArray[Any]], gate_offset: Float32Array) -> LogitsAndMargins:
        """Run a batch whose images lie in several arrays: all (N, side, side, 3) uint8, or all (N, 3, side, side)."""

    def pin(self, memory: npt.NDArray[np.uint8]) -> None:
        """Keep memory in its place, so that the device can copy from it while others compute."""

    def unpin(self, memory: npt.NDArray[np.uint8]) -> None:
        """Let it go."""


def description(runtime: Runtime) -> RuntimeDescription:
    """How a runtime runs its model."""
    return RuntimeDescription(runtime.name, runtime.device, runtime.precision, runtime.candidates)
