"""The original CIFAR-10 batches, in the binary or the Python form (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

import io
import pickle
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from models.config import CIFAR10_LABELS
from models.examples import DataError, Examples

_RECORD = 1 + 3 * 32 * 32


def is_batch(name: str) -> bool:
    """Whether a file of this name is one of the batches."""
    return PurePosixPath(name).name.startswith(("data_batch_", "test_batch"))


def read_batches(batches: dict[str, bytes]) -> Examples:
    """Read the batches of the given file names and contents.

    Where there are both training and test batches the training ones are read; give the test batch alone to get it.

    Raises:
        DataError: one is damaged, or they hold no images.
    """
    training = {name: data for name, data in batches.items() if not PurePosixPath(name).name.startswith("test_batch")}
    parts = [_read_batch(name, data) for name, data in sorted((training or batches).items())]
    pixels = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    classes = np.concatenate([part[1] for part in parts])
    if not len(classes) or classes.min() < 0 or classes.max() >= len(CIFAR10_LABELS):
        raise DataError(f"the CIFAR-10 batches hold no images, or classes that are not among the {len(CIFAR10_LABELS)}")
    return Examples(
        CIFAR10_LABELS,
        classes,
        [f"{index:05d}" for index in range(len(classes))],
        lambda index: Image.fromarray(np.ascontiguousarray(pixels[index])),
    )


def _read_batch(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8 and classes (N,) of one batch."""
    if name.endswith(".bin"):
        if not data or len(data) % _RECORD:
            raise DataError(f"{name} is not a CIFAR-10 binary batch")
        records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
        return records[:, 1:], records[:, 0].astype(np.int64)
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, classes = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle raises whatever its objects do
        raise DataError(f"{name} is not a CIFAR-10 Python batch: {error}") from error
    if pixels.shape != (len(classes), _RECORD - 1):
        raise DataError(f"{name} is not a CIFAR-10 Python batch: its data is of shape {pixels.shape}")
    return pixels, classes


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the arrays of CIFAR-10's Python batches and refuses every other object, so nothing can be executed."""

    _ALLOWED = frozenset({("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy")})

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "numpy" and (name, module.rsplit(".", 1)[-1]) in self._ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"refusing to load {module}.{name}")
