"""ONNX Runtime with the artifact's int8 graph: fast on processors that multiply 8-bit numbers in hardware."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from artifact.agreement import LogitsAndMargins
from artifact.manifest import INT8_NAME, Manifest
from artifact.preprocessing import Float32Array
from service.engine.runtimes.base import Candidate, Device, Model, Precision
from service.engine.runtimes.onnx import open_session, run_one_by_one
from service.engine.runtimes.onnx_file import verified_onnx_file


class Int8Runtime:
    """One session for all threads; each run stays on its caller's thread, and takes a single image.

    On x86 processors without VNNI the products of 8-bit numbers are summed in 16 bits, which may saturate. Opening the
    model checks its answers to the probes, so that such a processor serves it only if they come out right.

    Args:
        folder: of the artifact.
        manifest: of the model.

    Raises:
        ArtifactError: the artifact has no int8 graph, or it is damaged.
    """

    device = "cpu"
    precision: Precision = "int8"
    runs_batches = False
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        path = verified_onnx_file(folder, manifest, INT8_NAME)
        self.manifest = manifest
        self.name = f"onnxruntime {onnxruntime.__version__}, channels last"
        # Its operators are fused already; what is left to the basic level is to check it.
        self._session = open_session(path, optimisation="ORT_ENABLE_BASIC")

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        return run_one_by_one(self._session, images, gate_offset)


def open_model(model: Model, _: Device, __: Precision) -> Int8Runtime:
    """See `RuntimeKind.open`."""
    return Int8Runtime(model.folder, model.manifest)
