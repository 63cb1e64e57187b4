"""The process of a device that the portable graph on the CPU stands in for, where what runs there does not matter."""

from __future__ import annotations

from pathlib import Path

from artifact.agreement import LogitsAndMargins
from artifact.preprocessing import Float32Array
from service.engine.devices.talk import Opening
from service.engine.runtimes.base import Candidate, Precision, Runtime
from service.engine.runtimes.selection import open_runtime
from service.images.device_main import main


class Portable:
    """A runtime that calls itself one of CUDA."""

    device = "cuda"
    precision: Precision = "fp32"
    runs_batches = True
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.name, self.manifest = runtime.name, runtime.manifest

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        return self._runtime.run(images, gate_offset)


def open_portable(asked: Opening) -> Runtime:
    """The portable graph on the CPU."""
    return Portable(open_runtime(Path(asked.folder), "onnx", "cpu"))


if __name__ == "__main__":
    main(open_portable)
