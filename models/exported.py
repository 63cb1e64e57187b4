"""An exported artifact as a classifier: its portable graph in ONNX Runtime on the CPU's cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from artifact.agreement import LogitsAndMargins
from artifact.cores import usable_cores
from artifact.manifest import (
    INPUT_NAMES,
    ONNX_NAME,
    OUTPUT_NAMES,
    ArtifactError,
    Manifest,
    read_manifest,
    verified_file,
)
from artifact.onnx_options import configure
from artifact.preprocessing import UInt8Array
from models.hold_out import HELD_OUT_NAME, HeldOut
from models.structure import Structure


class ExportedClassifier:
    """One session for all threads; each run stays on its caller's thread."""

    runtime = "ONNX Runtime"

    def __init__(self, folder: Path, batch_size: int = 16) -> None:
        """Open the artifact in `folder`.

        Raises:
            ArtifactError: it is incomplete or damaged, or ONNX Runtime is missing or cannot open it.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ArtifactError("an artifact runs in ONNX Runtime: pip install '.[cpu]'") from error
        self.manifest = read_manifest(folder)
        self.structure = Structure.of_manifest(self.manifest)
        self.held_out = read_held_out(folder, self.manifest)
        self.batch_size = batch_size
        self.workers = usable_cores()
        path = verified_file(folder, self.manifest, ONNX_NAME)
        options = onnxruntime.SessionOptions()
        configure(options)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no public base class
            raise ArtifactError(f"ONNX Runtime cannot open {path}: {error}") from error

    def run(self, pixels: UInt8Array, gate_offset: float = 0.0) -> LogitsAndMargins:
        """See `Classifier.run`."""
        offsets = np.full(len(pixels), gate_offset, np.float32)
        inputs = dict(zip(INPUT_NAMES, (self.structure.preprocessing.normalise(pixels), offsets), strict=True))
        logits, margins = self._session.run(OUTPUT_NAMES, inputs)
        return logits, margins


def read_held_out(folder: Path, manifest: Manifest) -> HeldOut | None:
    """What the training of an exported network held out; None where the artifact does not tell.

    Raises:
        ArtifactError: the file that tells it is missing or damaged.
    """
    if HELD_OUT_NAME not in manifest.files:
        return None
    return HeldOut.model_validate_json(verified_file(folder, manifest, HELD_OUT_NAME).read_text())
