"""What tensors a model takes and gives, by the names of the Open Inference Protocol."""

from __future__ import annotations

from dataclasses import dataclass

from artifact.manifest import Manifest

ENCODED, IMAGES, GATE_OFFSET = "encoded_images", "images", "gate_offset"
PLATFORM = "convnet-aig"
"""What models are exported for."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor.

    Attributes:
        name: in requests or answers.
        datatype: as the protocol has it.
        shape: with -1 for the number of images.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


def inputs_of(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """What a model takes: image files, or instead of them what its network takes; and what is added to all margins."""
    side = manifest.input_size
    return (
        TensorSpec(ENCODED, "BYTES", (-1,)),
        TensorSpec(IMAGES, "FP32", (-1, 3, side, side)),
        TensorSpec(GATE_OFFSET, "FP32", (-1,)),
    )


def outputs_of(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """What a model gives."""
    classes = len(manifest.labels)
    return (
        TensorSpec("logits", "FP32", (-1, classes)),
        TensorSpec("probabilities", "FP32", (-1, classes)),
        TensorSpec("margins", "FP32", (-1, len(manifest.gated_indices))),
        TensorSpec("executed", "BOOL", (-1, len(manifest.blocks))),
        TensorSpec("macs", "INT64", (-1,)),
    )
