"""Probes: a few images with the answers the network gave to them, to prove a runtime on the machine that serves.

Images alone may leave a branch unseen. So for the first few the answers with forced gates are there too, but in
artifacts of earlier exports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifact.agreement import Agreement, LogitsAndMargins, Run
from artifact.gating import Gating
from artifact.manifest import ALWAYS, NEVER, PROBES_NAME, ArtifactError, Manifest, verified_file
from artifact.preprocessing import Float32Array

# Enough images to see gates decide both ways, in a file that stays small beside the weights.
_MOST_PROBES, _MOST_BYTES = 64, 4_000_000
# Gate offsets of three batches of four images: all gates open, all closed, and those of every second image open.
_FORCED = np.array([[ALWAYS, ALWAYS] * 2, [NEVER, NEVER] * 2, [ALWAYS, NEVER] * 2], np.float32)
_FORCED_NAMES = ("forced_logits", "forced_margins")


@dataclass(frozen=True)
class Probes:
    """Images and what the trained network said to them.

    Attributes:
        images: (N, 3, H, W), preprocessed.
        logits: (N, classes), with no gate offset.
        margins: (N, G).
        forced: (3, 4, classes) logits and (3, 4, G) margins, see `run_forced`; None where the export wrote none.
    """

    images: Float32Array
    logits: Float32Array
    margins: Float32Array
    forced: LogitsAndMargins | None = None

    def __len__(self) -> int:
        return len(self.images)

    def agreement(self, actual: LogitsAndMargins, gating: Gating) -> Agreement:
        """How well a runtime's logits and margins for the probes agree with the trained network's."""
        agreement = Agreement()
        offsets = np.zeros(len(self), np.float32)
        agreement.compare("probes", (self.logits, self.margins), actual, offsets, gating)
        return agreement


def run_forced(run: Run, images: Float32Array) -> LogitsAndMargins:
    """What a network says with forced gates to the first four of the images, over again where there are fewer.

    Returns:
        (3, 4, classes) logits and (3, 4, G) margins of three batches: all gates open, all closed, and by turns.
    """
    batch = np.resize(images, (_FORCED.shape[1], *images.shape[1:]))
    answers = [run(batch, offsets) for offsets in _FORCED]
    return np.stack([logits for logits, _ in answers]), np.stack([margins for _, margins in answers])


def forced_agreement(expected: LogitsAndMargins, actual: LogitsAndMargins, gating: Gating) -> Agreement:
    """How well two results of `run_forced` agree."""
    agreement = Agreement()
    for one, other, offsets in zip(zip(*expected, strict=True), zip(*actual, strict=True), _FORCED, strict=True):
        agreement.compare("forced gates", one, other, offsets, gating)
    return agreement


def probe_count(images: Float32Array) -> int:
    """How many of the images (N, 3, H, W) to keep as probes, at least one."""
    return max(1, min(len(images), _MOST_PROBES, _MOST_BYTES // int(images[0].nbytes)))


def write_probes(folder: Path, probes: Probes) -> None:
    """Write the probes of the artifact in `folder`."""
    arrays: dict[str, Any] = {"images": probes.images, "logits": probes.logits, "margins": probes.margins}
    if probes.forced is not None:
        arrays |= dict(zip(_FORCED_NAMES, probes.forced, strict=True))
    with (folder / PROBES_NAME).open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_probes(folder: Path, manifest: Manifest) -> Probes:
    """Read the probes of the artifact in `folder`.

    Raises:
        ArtifactError: they are missing, damaged, or not of this model.
    """
    path = verified_file(folder, manifest, PROBES_NAME)
    try:
        # NumPy leaves a file that is none of its own open, if it opened it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            forced = None
            if any(name in arrays for name in _FORCED_NAMES):
                forced = arrays[_FORCED_NAMES[0]], arrays[_FORCED_NAMES[1]]
            probes = Probes(arrays["images"], arrays["logits"], arrays["margins"], forced)
    except Exception as error:  # what NumPy raises on other files shares no public base class
        raise ArtifactError(f"{path} holds no probes: {error}") from error
    parts = (probes.images, probes.logits, probes.margins, *(forced or ()))
    side, count = manifest.input_size, max((1, *probes.images.shape[:1]))
    answer = (len(manifest.labels),), (len(manifest.gated_indices),)
    shapes = [(count, 3, side, side), *((count, *shape) for shape in answer)]
    if forced:
        shapes += [(*_FORCED.shape, *shape) for shape in answer]
    if [part.shape for part in parts] != shapes or any(part.dtype != np.float32 for part in parts):
        raise ArtifactError(f"{path} holds probes of another model")
    return probes
