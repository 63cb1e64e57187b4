"""Finding labelled images: class folders, a tar of them, or the original CIFAR-10 batches, in a folder or a tar."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from artifact.formats import SUFFIXES
from artifact.image_files import open_image
from models.cifar_batches import is_batch, read_batches
from models.examples import DataError, Examples

_PARTS = _TRAINING, _VALIDATION = "train", "val"
_SUFFIXES = {".ppm", *chain.from_iterable(SUFFIXES.values())}


def open_examples(path: Path) -> Examples:
    """Read the index of the images at `path`; see the module's first line for the forms.

    A folder (or tar) may hold the class folders directly, in one folder above them, such as `train/`, or in `train/`
    and `val/`. What is hidden, or in a hidden folder, is left out. Links to images are followed, but not links to
    folders, which may lead round in circles, nor links in a tar.

    Raises:
        DataError: nothing readable is there.
        OSError: a folder cannot be read.
    """
    # Else the first images load Pillow's formats, and where threads open them at once one may miss its own format.
    Image.init()
    if path.is_dir():
        if batches := [file for file in path.iterdir() if is_batch(file.name)]:
            return read_batches({file.name: file.read_bytes() for file in batches})
        return _folder(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; --data takes a folder or tar of class folders, or CIFAR-10's batches")
    if tarfile.is_tarfile(path):
        return _tar(path)
    if is_batch(path.name):
        return read_batches({path.name: path.read_bytes()})
    raise DataError(f"{path} is neither a folder, a tar file nor a CIFAR-10 batch")


def _index(members: dict[str, Callable[[], Image.Image]], origin: Path) -> Examples:
    """Examples whose class is the name of the folder they lie in."""
    names = sorted(members)
    if not names:
        raise DataError(f"no images in class folders under {origin}, but for what is hidden or behind links to folders")
    folders = [PurePosixPath(name).parent.name for name in names]
    labels = tuple(sorted(set(folders)))
    if "" in labels:
        raise DataError(f"{origin} holds images outside any class folder: put them into folders named by their class")
    parents = sorted({PurePosixPath(name).parent.parent for name in names})
    has_validation = [parent.name for parent in parents] == [*_PARTS] and len({each.parent for each in parents}) == 1
    if len(parents) > 1 and not has_validation:  # such as train/ and test/, which must not be mixed
        several = ", ".join(parent.as_posix() for parent in parents[:3])
        raise DataError(
            f"{origin} holds class folders in several folders ({several}): name one of them, or call two train and val"
        )
    number = {label: index for index, label in enumerate(labels)}
    classes = np.array([number[folder] for folder in folders], np.int64)
    # Names start at the class folder, or at the one above it where there are two, so that a folder and a tar of it give
    # the same examples in the same order.
    short = ["/".join(PurePosixPath(name).parts[-3 if has_validation else -2 :]) for name in names]
    folder = parents[0].parent if has_validation else parents[0]
    validation = None
    if has_validation:
        validation = np.array([name.startswith(f"{_VALIDATION}/") for name in short])
        if unknown := sorted({*classes.tolist()} - {*classes[~validation].tolist()}):
            raise DataError(
                f"{origin} holds classes in {_VALIDATION} only ({', '.join(labels[each] for each in unknown[:3])})"
            )
    return Examples(
        labels,
        classes,
        short,
        lambda index: members[names[index]](),
        f"{origin}/{folder.as_posix()}",
        validation=validation,
    )


def _folder(path: Path) -> Examples:
    def opener(file: Path) -> Callable[[], Image.Image]:
        # Read at once: an image that cannot be decoded leaves no file open.
        return lambda: open_image(file.read_bytes())

    def fail(error: OSError) -> None:
        raise error

    files: dict[str, Callable[[], Image.Image]] = {}
    for folder, subfolders, names in os.walk(path, onerror=fail):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]  # which are not gone into then
        paths = [Path(folder, name) for name in names if _is_image(name) and not _is_hidden(name)]
        files |= {file.relative_to(path).as_posix(): opener(file) for file in paths}
    return _index(files, path)


def _tar(path: Path) -> Examples:
    def opener(data: bytes) -> Callable[[], Image.Image]:
        return lambda: open_image(data)

    # A compressed tar cannot be read at random, so the encoded files are kept in memory.
    try:
        with tarfile.open(path) as archive:
            files = {member.name: _content(archive, member) for member in archive if _is_wanted(member)}
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if batches := {name: data for name, data in files.items() if is_batch(name)}:
        return read_batches(batches)
    return _index({name: opener(data) for name, data in files.items()}, path)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


def _is_wanted(member: tarfile.TarInfo) -> bool:
    return member.isfile() and (_is_image(member.name) or is_batch(member.name)) and not _is_hidden(member.name)


def _is_hidden(name: str) -> bool:
    """Whether a file or a folder on the way to it is hidden, or is what macOS adds to archives."""
    return any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in PurePosixPath(name).parts)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None  # it is a file
    return stream.read()
