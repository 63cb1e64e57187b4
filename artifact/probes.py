"""Probes: a few images with the answers the network gave to them, to prove a runtime on the machine that serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact.agreement import Agreement, LogitsAndMargins
from artifact.manifest import PROBES_NAME, ArtifactError, Manifest, verified_file
from artifact.preprocessing import Float32Array

# Enough images to see gates decide both ways, in a file that stays small beside the weights.
_MOST_PROBES, _MOST_BYTES = 64, 4_000_000


@dataclass(frozen=True)
class Probes:
    """Images and what the trained network said to them.

    Attributes:
        images: (N, 3, H, W), preprocessed.
        logits: (N, classes), with no gate offset.
        margins: (N, G).
    """

    images: Float32Array
    logits: Float32Array
    margins: Float32Array

    def __len__(self) -> int:
        return len(self.images)

    def agreement(self, actual: LogitsAndMargins, gate_threshold: float) -> Agreement:
        """How well a runtime's logits and margins for the probes agree with the trained network's."""
        agreement = Agreement()
        offsets = np.zeros(len(self), np.float32)
        agreement.compare("probes", (self.logits, self.margins), actual, offsets, gate_threshold)
        return agreement


def probe_count(images: Float32Array) -> int:
    """How many of the images (N, 3, H, W) to keep as probes, at least one."""
    return max(1, min(len(images), _MOST_PROBES, _MOST_BYTES // int(images[0].nbytes)))


def write_probes(folder: Path, probes: Probes) -> None:
    """Write the probes of the artifact in `folder`."""
    with (folder / PROBES_NAME).open("wb") as file:
        np.savez_compressed(file, images=probes.images, logits=probes.logits, margins=probes.margins)


def read_probes(folder: Path, manifest: Manifest) -> Probes:
    """Read the probes of the artifact in `folder`.

    Raises:
        ArtifactError: they are missing, damaged, or not of this model.
    """
    path = verified_file(folder, manifest, PROBES_NAME)
    try:
        # NumPy leaves a file that is none of its own open, if it opened it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            probes = Probes(arrays["images"], arrays["logits"], arrays["margins"])
    except Exception as error:  # what NumPy raises on other files shares no public base class
        raise ArtifactError(f"{path} holds no probes: {error}") from error
    parts = (probes.images, probes.logits, probes.margins)
    side, count = manifest.input_size, max((1, *probes.images.shape[:1]))
    shapes = ((count, 3, side, side), (count, len(manifest.labels)), (count, len(manifest.gated_indices)))
    if tuple(part.shape for part in parts) != shapes or any(part.dtype != np.float32 for part in parts):
        raise ArtifactError(f"{path} holds probes of another model")
    return probes
