from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.config import CIFAR10_LABELS
from models.sources import DataError, Examples, open_examples
from tests.conftest import MakeFolders

LABELS = ("cat", "dog", "eel")


@pytest.fixture
def folder(tmp_path: Path, make_class_folders: MakeFolders) -> Path:
    return make_class_folders(tmp_path / "images", LABELS, each=4, side=8)


def _pixels(examples: Examples) -> np.ndarray:
    return np.stack([np.asarray(examples.image(index)) for index in range(len(examples))])


def _assert_same(first: Examples, second: Examples) -> None:
    assert first.labels == second.labels
    assert list(first.names) == list(second.names)
    assert first.classes.tolist() == second.classes.tolist()
    assert np.array_equal(_pixels(first), _pixels(second))


def test_class_of_an_image_is_the_name_of_its_folder(folder: Path) -> None:
    examples = open_examples(folder)
    assert examples.labels == LABELS
    assert examples.classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert examples.names[5] == "dog/001.png"
    assert np.array_equal(np.asarray(examples.image(5)), np.asarray(Image.open(folder / "dog" / "001.png")))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("prefix", [".", "train"])
def test_folder_and_tar_of_it_give_the_same_examples(folder: Path, tmp_path: Path, mode: str, prefix: str) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, prefix)
    _assert_same(open_examples(path), open_examples(folder))


def test_class_folders_may_lie_in_a_folder_of_their_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "above").mkdir()
    folder.rename(tmp_path / "above" / "train")
    assert open_examples(tmp_path / "above").names[0] == "cat/000.png"


def test_order_does_not_depend_on_the_order_in_which_files_were_written(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "backwards.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.add(file, file.relative_to(folder))
    _assert_same(open_examples(path), open_examples(folder))


def test_other_files_are_left_alone(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("not an image")
    assert len(open_examples(folder)) == 12


def test_missing_data_says_what_is_taken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*folder or tar"):
        open_examples(tmp_path / "nowhere")


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_examples(tmp_path)


def test_images_outside_class_folders_are_refused(folder: Path) -> None:
    (folder / "cat" / "000.png").rename(folder / "stray.png")
    with pytest.raises(DataError, match="outside any class folder"):
        open_examples(folder)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(b"PK\3\4" * 100)
    with pytest.raises(DataError, match="neither"):
        open_examples(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_truncated_tar_is_refused(folder: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, ".")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(DataError):
        open_examples(path)


def test_image_that_cannot_be_decoded_is_named(folder: Path) -> None:
    damaged = folder / "cat" / "002.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    examples = open_examples(folder)
    examples.image(1)
    with pytest.raises(DataError, match=r"cannot decode cat/002\.png"):
        examples.image(2)


def _cifar_pixels(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, (count, 3, 32, 32), np.uint8)


def _write_binary(path: Path, classes: np.ndarray, pixels: np.ndarray) -> None:
    path.write_bytes(np.concatenate([classes.astype(np.uint8)[:, None], pixels.reshape(-1, 3072)], 1).tobytes())


def _write_python(path: Path, classes: np.ndarray, pixels: np.ndarray) -> None:
    path.write_bytes(pickle.dumps({b"data": pixels.reshape(-1, 3072), b"labels": classes.tolist()}, protocol=3))


def _assert_cifar(examples: Examples, classes: np.ndarray, pixels: np.ndarray) -> None:
    assert examples.labels == CIFAR10_LABELS
    assert examples.classes.tolist() == classes.tolist()
    assert np.array_equal(_pixels(examples), pixels.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(("write", "suffix"), [(_write_binary, ".bin"), (_write_python, "")])
def test_cifar_batches_are_read_in_order(tmp_path: Path, rng: np.random.Generator, write, suffix: str) -> None:  # type: ignore[no-untyped-def]
    classes, pixels = rng.integers(0, 10, 6), _cifar_pixels(rng, 6)
    write(tmp_path / f"data_batch_1{suffix}", classes[:4], pixels[:4])
    write(tmp_path / f"data_batch_2{suffix}", classes[4:], pixels[4:])
    write(tmp_path / f"test_batch{suffix}", classes[::-1], pixels[::-1])
    _assert_cifar(open_examples(tmp_path), classes, pixels)
    _assert_cifar(open_examples(tmp_path / f"test_batch{suffix}"), classes[::-1], pixels[::-1])


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
