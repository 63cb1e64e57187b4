"""Memory that a worker and the process of a device share: a batch, and its answers."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.manifest import Manifest
from artifact.preprocessing import Float32Array, UInt8Array


class SharedBatch:
    """A view of it; both sides have the same.

    Args:
        descriptor: of the memory; it may be closed afterwards.
        manifest: of the model.
        rows: images there is room for.

    Attributes:
        offsets: (rows,) of the gates.
        pixels: (rows, side, side, 3), the same memory as
        tensors: (rows, 3, side, side).
        logits: (rows, classes).
        margins: (rows, G).
        whole: all of it.
    """

    def __init__(self, descriptor: int, manifest: Manifest, rows: int) -> None:
        side, classes, gates = manifest.input_size, len(manifest.labels), len(manifest.gated_indices)
        self.rows = rows
        self.whole: npt.NDArray[np.uint8] = np.frombuffer(mmap.mmap(descriptor, size(manifest, rows)), np.uint8)
        self._end = 0
        self.offsets: Float32Array = self._next(np.float32, rows)
        image_bytes = self._next(np.uint8, rows * 12 * side**2)
        self.pixels: UInt8Array = image_bytes[: rows * 3 * side**2].reshape(rows, side, side, 3)
        self.tensors: Float32Array = image_bytes.view(np.float32).reshape(rows, 3, side, side)
        self.logits: Float32Array = self._next(np.float32, rows * classes).reshape(rows, classes)
        self.margins: Float32Array = self._next(np.float32, rows * gates).reshape(rows, gates)

    def images(self, are_pixels: bool, count: int) -> npt.NDArray[Any]:
        """The first of them, as what they are."""
        return self.pixels[:count] if are_pixels else self.tensors[:count]

    def _next(self, kind: type[np.generic], count: int) -> npt.NDArray[Any]:
        begin = self._end
        self._end += count * np.dtype(kind).itemsize
        return self.whole[begin : self._end].view(kind)


def size(manifest: Manifest, rows: int) -> int:
    """Of the memory, in bytes."""
    numbers = 1 + 3 * manifest.input_size**2 + len(manifest.labels) + len(manifest.gated_indices)
    return 4 * rows * numbers


def shared_memory(manifest: Manifest, rows: int) -> int:
    """The descriptor of new memory."""
    descriptor = os.memfd_create("batch")
    os.ftruncate(descriptor, size(manifest, rows))
    return descriptor
