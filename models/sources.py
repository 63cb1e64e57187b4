"""Where labelled images come from: class folders, a tar of them, or the original CIFAR-10 batches."""

from __future__ import annotations

import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"}
_CIFAR_RECORD = 1 + 3 * 32 * 32


class DataError(ValueError):
    """The data folder or file is missing, empty or not in a form this reads."""


@dataclass(frozen=True)
class Examples:
    """Labelled images that are decoded on demand.

    Attributes:
        labels: class names, sorted; their order is that of the class indices.
        classes: class index of every example.
        names: a name of every example that stays the same wherever the data lies.
    """

    labels: tuple[str, ...]
    classes: np.ndarray
    names: Sequence[str]
    _open: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.classes)

    def image(self, index: int) -> Image.Image:
        """Decode one example.

        Raises:
            DataError: its file cannot be decoded.
        """
        try:
            image = self._open(index)
            image.load()
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types for a damaged file
            raise DataError(f"cannot decode {self.names[index]}: {error}") from error
        return image


def open_examples(path: Path) -> Examples:
    """Read the index of the images at `path`; see the module's first line for the forms.

    A folder (or tar) may hold the class folders directly or inside one folder above them, such as `train/`.

    Raises:
        DataError: nothing readable is there.
    """
    if path.is_dir():
        if batches := sorted([*path.glob("data_batch_*"), *path.glob("test_batch*")]):
            return _cifar_batches(path, batches)
        return _folder(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; --data takes a folder or tar of class folders, or CIFAR-10's batches")
    if tarfile.is_tarfile(path):
        return _tar(path)
    if path.name.startswith(("data_batch_", "test_batch")):
        return _cifar_batches(path.parent, [path])
    raise DataError(f"{path} is neither a folder, a tar file nor a CIFAR-10 batch")


def _index(members: dict[str, Callable[[], Image.Image]], origin: Path) -> Examples:
    """Examples whose class is the name of the folder they lie in."""
    names = sorted(members)
    if not names:
        raise DataError(f"no images in class folders under {origin}")
    folders = [PurePosixPath(name).parent.name for name in names]
    labels = tuple(sorted(set(folders)))
    if "" in labels:
        raise DataError(f"{origin} holds images outside any class folder")
    number = {label: index for index, label in enumerate(labels)}
    classes = np.array([number[folder] for folder in folders], np.int64)
    # Names start at the class folder, so that a folder and a tar of it give the same examples in the same order.
    short = ["/".join(PurePosixPath(name).parts[-2:]) for name in names]
    return Examples(labels, classes, short, lambda index: members[names[index]]())


def _folder(path: Path) -> Examples:
    def opener(file: Path) -> Callable[[], Image.Image]:
        # Read at once: an image that cannot be decoded leaves no file open.
        return lambda: Image.open(io.BytesIO(file.read_bytes()))

    files = [file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES]
    return _index({file.relative_to(path).as_posix(): opener(file) for file in files}, path)


def _tar(path: Path) -> Examples:
    def opener(data: bytes) -> Callable[[], Image.Image]:
        return lambda: Image.open(io.BytesIO(data))

    # A compressed tar cannot be read at random, so the encoded files are kept in memory.
    members = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() in _SUFFIXES:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    members[member.name] = opener(stream.read())
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return _index(members, path)


def _cifar_batches(folder: Path, batches: list[Path]) -> Examples:
    """The original CIFAR-10 batches, in the binary or the Python form (https://www.cs.toronto.edu/~kriz/cifar.html).

    A folder that holds both training and test batches gives the training ones; name the test batch itself to get it.
    """
    training = [batch for batch in batches if batch.name.startswith("data_batch_")]
    parts = [_cifar_batch(batch) for batch in training or batches]
    pixels = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    classes = np.concatenate([part[1] for part in parts])
    labels = _cifar_labels(folder)
    if not len(classes) or classes.min() < 0 or classes.max() >= len(labels):
        raise DataError(f"the batches in {folder} hold no images, or classes that are not among the {len(labels)}")
    return Examples(
        labels,
        classes,
        [f"{index:05d}" for index in range(len(classes))],
        lambda index: Image.fromarray(np.ascontiguousarray(pixels[index])),
    )


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8 and classes (N,) of one batch."""
    data = path.read_bytes()
    if path.suffix == ".bin":
        if not data or len(data) % _CIFAR_RECORD:
            raise DataError(f"{path} is not a CIFAR-10 binary batch")
        records = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_RECORD)
        return records[:, 1:], records[:, 0].astype(np.int64)
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, classes = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle raises whatever its objects do
        raise DataError(f"{path} is not a CIFAR-10 Python batch: {error}") from error
    if pixels.shape != (len(classes), _CIFAR_RECORD - 1):
        raise DataError(f"{path} is not a CIFAR-10 Python batch: its data is of shape {pixels.shape}")
    return pixels, classes


def _cifar_labels(folder: Path) -> tuple[str, ...]:
    names = folder / "batches.meta.txt"
    if names.is_file():
        return tuple(names.read_text().split())
    # The Python form keeps the names in a pickle; they are the same ten in every copy.
    return ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads the arrays of CIFAR-10's Python batches and refuses every other object, so nothing can be executed."""

    _ALLOWED = frozenset({("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy")})

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] == "numpy" and (name, module.rsplit(".", 1)[-1]) in self._ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"refusing to load {module}.{name}")
