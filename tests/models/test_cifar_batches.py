from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from models.config import CIFAR10_LABELS
from models.examples import DataError, Examples
from models.sources import open_examples


def _cifar_pixels(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, 3, 32, 32), np.uint8)


def _write_binary(path: Path, classes: np.ndarray, pixels: np.ndarray) -> None:
    path.write_bytes(np.concatenate([classes.astype(np.uint8)[:, None], pixels.reshape(-1, 3072)], 1).tobytes())


def _write_python(path: Path, classes: np.ndarray, pixels: np.ndarray) -> None:
    path.write_bytes(pickle.dumps({b"data": pixels.reshape(-1, 3072), b"labels": classes.tolist()}, protocol=3))


def _assert_cifar(examples: Examples, classes: np.ndarray, pixels: np.ndarray) -> None:
    assert examples.labels == CIFAR10_LABELS
    assert examples.classes.tolist() == classes.tolist()
    assert np.array_equal(
        np.stack([np.asarray(examples.image(index)) for index in range(len(examples))]), pixels.transpose(0, 2, 3, 1)
    )


@pytest.mark.parametrize(("write", "suffix"), [(_write_binary, ".bin"), (_write_python, "")])
def test_cifar_batches_are_read_in_order(tmp_path: Path, rng: np.random.Generator, write, suffix: str) -> None:  # type: ignore[no-untyped-def]
    classes, pixels = rng.integers(0, 10, 6), _cifar_pixels(rng, 6)
    write(tmp_path / f"data_batch_1{suffix}", classes[:4], pixels[:4])
    write(tmp_path / f"data_batch_2{suffix}", classes[4:], pixels[4:])
    write(tmp_path / f"test_batch{suffix}", classes[::-1], pixels[::-1])
    _assert_cifar(open_examples(tmp_path), classes, pixels)
    _assert_cifar(open_examples(tmp_path / f"test_batch{suffix}"), classes[::-1], pixels[::-1])


def test_archive_of_the_batches_is_read_as_it_was_downloaded(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    classes, pixels = rng.integers(0, 10, 6), _cifar_pixels(rng, 6)
    _write_python(folder / "data_batch_2", classes[4:], pixels[4:])
    _write_python(folder / "data_batch_1", classes[:4], pixels[:4])
    _write_python(folder / "test_batch", classes[:1], pixels[:1])
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    _assert_cifar(open_examples(tmp_path / "cifar-10-python.tar.gz"), classes, pixels)


def test_batches_pickled_with_an_older_numpy_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    path, pixels = tmp_path / "data_batch_1", _cifar_pixels(rng, 2)
    _write_python(path, np.array([3, 5]), pixels)
    assert b"numpy._core" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    _assert_cifar(open_examples(path), np.array([3, 5]), pixels)


class _Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_malicious_batch_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0], b"more": _Malicious(trap)}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match=r"refusing to load .*mkdir"):
        open_examples(tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize("function", ["load", "save", "fromfile"])
def test_batch_may_use_nothing_of_numpy_but_arrays(tmp_path: Path, function: str) -> None:
    (tmp_path / "data_batch_1").write_bytes(f"cnumpy\n{function}\n.".encode())
    with pytest.raises(DataError, match="refusing"):
        open_examples(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", pickle.dumps([1, 2]), pickle.dumps({b"data": [[1, 2]], b"labels": [0]})]
)
def test_damaged_python_batch_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match="not a CIFAR-10 Python batch"):
        open_examples(tmp_path)


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_binary_batch_of_a_wrong_size_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match="not a CIFAR-10 binary batch"):
        open_examples(tmp_path)


def test_batch_with_an_unknown_class_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    _write_binary(tmp_path / "data_batch_1.bin", np.array([3, 10]), _cifar_pixels(rng, 2))
    with pytest.raises(DataError, match="classes"):
        open_examples(tmp_path)
