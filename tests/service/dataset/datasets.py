"""Small datasets of every kind, and answers read back."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from service.dataset.items import Dataset, Item, Source
from service.dataset.opening import Reading, open_dataset

READING = Reading(most_bytes=10_000)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar file of these members, in order."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder of these files, by their paths in it."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]], row_group_size: int = 100) -> Path:
    """A Parquet file of these columns."""
    return write_parquet_table(path, pa.table({name: list(values) for name, values in columns.items()}), row_group_size)


def write_parquet_table(path: Path, table: pa.Table, row_group_size: int = 100) -> Path:
    """A Parquet file of a table."""
    pq.write_table(table, path, row_group_size)
    return path


def opened(*inputs: Path) -> Dataset:
    """The dataset that these are."""
    return open_dataset([str(each) for each in inputs], READING)


def all_items(source: Source, start: int = 0) -> list[tuple[str, bytes | str]]:
    """Name and content of the items of a source; in the place of a content that there is not, the type of the error."""
    return [_told(item) for item in source.items(start)]


def _told(item: Item) -> tuple[str, bytes | str]:
    return item.name, item.content if isinstance(item.content, bytes) else item.content.type


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder of answers, part by part."""
    told: list[dict[str, Any]] = ds.dataset(sorted(folder.glob("part-*.parquet"))).to_table().to_pylist()
    return told
