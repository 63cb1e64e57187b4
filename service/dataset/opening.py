"""What is meant by the input on the command line: a folder, files of one kind, or a pattern for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.dataset.files import IMAGE_SUFFIXES, Folder, PathList
from service.dataset.items import Dataset, DatasetError, Source
from service.dataset.parquet_tables import ParquetTable
from service.dataset.tar_shards import SUFFIXES as TAR_SUFFIXES
from service.dataset.tar_shards import TarShard


@dataclass(frozen=True)
class Reading:
    """How the input is read.

    Attributes:
        most_bytes: of an image file; of a larger one no more is read than tells that.
        image_column, name_column: of Parquet files; None finds them.
    """

    most_bytes: int
    image_column: str | None = None
    name_column: str | None = None


def open_dataset(inputs: Sequence[str], reading: Reading) -> Dataset:
    """The dataset that is meant.

    Args:
        inputs: one folder or list, or any number of shards or Parquet files, or patterns for them.
        reading: how it is read.

    Raises:
        DatasetError: there is no such thing, or it is not clear what it is, or it cannot be read.
    """
    try:
        return _opened(inputs, reading)
    except OSError as error:
        raise DatasetError(f"{os.fsdecode(error.filename)} cannot be read: {error.strerror}") from error


def _opened(inputs: Sequence[str], reading: Reading) -> Dataset:
    paths = [path for each in inputs for path in _matching(each)]
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise DatasetError(f"the input is of several kinds ({', '.join(sorted(kinds))}); give one of them at a time")
    if kinds & {"tar", "parquet"}:
        return _shards(kinds.pop(), paths, reading)
    if len(paths) > 1:
        raise DatasetError("of folders and lists one can be given at a time; name a folder that has all, or one list")
    (path,) = paths
    if kinds == {"list"}:
        return PathList(path, reading.most_bytes).dataset()
    return _in_folder(path, reading)


def _matching(text: str) -> list[Path]:
    """What there is of a name, or of a pattern."""
    path = Path(text)
    try:
        found = [path] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as error:
        raise DatasetError(f"{text} is no pattern: {error}") from error
    if not found:
        raise DatasetError(f"there is nothing at {text}")
    return found


def _kind(path: Path) -> str:
    name = path.name.lower()
    if path.is_dir():
        return "folder"
    kinds = {".parquet": "parquet", ".txt": "list"} | dict.fromkeys(TAR_SUFFIXES, "tar")
    kind = next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), None)
    if kind is None:
        raise DatasetError(f"{path} is no folder, no tar file, no list (.txt) and no Parquet file")
    if not path.is_file():  # of a pipe or a device there may be no end
        raise DatasetError(f"{path} is no regular file")
    return kind


def _in_folder(path: Path, reading: Reading) -> Dataset:
    """The shards or the Parquet files right in a folder, or else the image files in it and below."""
    shards: dict[str, list[Path]] = {"tar": [], "parquet": []}
    has_images = False
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name.lower()
            if name.startswith((".", "_")) or not _is_file(entry):
                continue
            has_images = has_images or name.endswith(IMAGE_SUFFIXES)
            if name.endswith((*TAR_SUFFIXES, ".parquet")):
                shards["parquet" if name.endswith(".parquet") else "tar"].append(Path(entry.path))
    found = [kind for kind, paths in shards.items() if paths] + ["image"] * has_images
    if len(found) > 1 and found != ["image"]:
        raise DatasetError(f"{path} has files of several kinds ({', '.join(found)}); name some, as {path / '*.tar'}")
    if found and found != ["image"]:
        return _shards(found[0], sorted(shards[found[0]]), reading)
    return Folder(path, reading.most_bytes).dataset()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _shards(kind: str, paths: Sequence[Path], reading: Reading) -> Dataset:
    """Shards or Parquet files, named from the folder on that has them all."""
    top = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    columns = (reading.image_column, reading.name_column)
    digest = hashlib.sha256(repr(columns).encode())
    sources: list[Source] = []
    for path in paths:
        name, told = str(path.absolute().relative_to(top)), path.stat()
        digest.update(f"{name}\0{told.st_size}\0{told.st_mtime_ns}\0".encode(errors="surrogateescape"))
        if kind == "tar":
            sources.append(TarShard(path, name, reading.most_bytes))
        else:
            sources.append(ParquetTable(path, name, reading.most_bytes, *columns))
    if len({source.name for source in sources}) < len(sources):
        raise DatasetError("a file is named twice in the input")
    images = sum(source.size for source in sources) if kind == "parquet" else None
    return Dataset(kind, digest.hexdigest(), sources, images)
