"""Images in the rows of Parquet files: bytes, or Hugging Face's struct of bytes and a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.dataset.items import DatasetError, Item, Unreadable

# What columns are usually called.
_IMAGE_COLUMNS = ("image", "bytes", "img", "jpg", "png", "content", "data")
_NAME_COLUMNS = ("name", "path", "file_name", "filename", "__key__", "key", "id", "url")

# Rows read at a time, unless a group has so many bytes that it might have one of many, which a dictionary may repeat.
_ROWS, _LARGE_GROUP_BYTES = 16, 64_000_000
# How much of a column is read ahead.
_BUFFER_BYTES = 1_048_576
# Of a name no more is kept, in bytes: a dictionary may repeat one without taking any room in the file.
_MOST_NAME_BYTES = 65_536


class ParquetTable:
    """The rows of a file.

    Args:
        path: of the file.
        name: unique in its input.
        most_bytes: that are kept of an image, and one more.
        image_column, name_column: which they are; None finds those that are called as usual.

    Raises:
        DatasetError: the columns are not there, or it is not clear which they are.
    """

    def __init__(
        self, path: Path, name: str, most_bytes: int, image_column: str | None, name_column: str | None
    ) -> None:
        self._path, self.name, self._most_bytes = path, name, most_bytes
        self._problem: Unreadable | None = None
        try:
            with pq.ParquetFile(path) as file:
                self.size = file.metadata.num_rows
                groups = [file.metadata.row_group(each) for each in range(file.num_row_groups)]
                self._group_rows = [group.num_rows for group in groups]
                self._rows = 1 if any(group.total_byte_size > _LARGE_GROUP_BYTES for group in groups) else _ROWS
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            self._problem = _corrupt(f"the file cannot be read: {error}")
            self.size = 1
            return
        self._image = _chosen(schema, image_column, _IMAGE_COLUMNS, _has_images, f"{path}: --image-column")
        self._label = None
        if name_column or any(each.name in _NAME_COLUMNS and _has_names(each) for each in schema):
            self._label = _chosen(schema, name_column, _NAME_COLUMNS, _has_names, f"{path}: --name-column")

    def items(self, start: int) -> Iterator[Item]:
        """See `Source`. Groups of rows that are not wanted are not read."""
        if self._problem:
            yield from [Item(self.name, self._problem, 1)][start:]
            return
        number, groups = 0, list(range(len(self._group_rows)))
        while groups and number + self._group_rows[groups[0]] <= start:
            number += self._group_rows[groups.pop(0)]
        if not groups:
            return
        columns = [self._image] if self._label is None else [self._image, self._label]
        try:
            with pq.ParquetFile(self._path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                for batch in file.iter_batches(self._rows, row_groups=groups, columns=columns):
                    for row in range(max(0, start - number), len(batch)):
                        yield self._item(batch, row, number + row)
                    number += len(batch)
        except (pa.ArrowException, OSError) as error:
            if number >= start:
                problem = _corrupt(f"the file cannot be read after {number} of its rows: {error}")
                yield Item(self.name, problem, self.size)

    def _item(self, batch: pa.RecordBatch, row: int, number: int) -> Item:
        image = batch.column(self._image)[row]
        name = None if self._label is None else _name(batch.column(self._label)[row])
        if isinstance(image, pa.StructScalar):
            if name is None and image.type.get_field_index("path") >= 0:
                name = _name(image["path"])
            image = image["bytes"]
        content = _first(image, self._most_bytes + 1)
        told = str(number) if name is None else name
        return Item(told, Unreadable("the row has no image") if content is None else content, number + 1)


def _corrupt(told: str) -> Unreadable:
    return Unreadable(" ".join(told.split()), "corrupt_shard")


def _name(value: pa.Scalar) -> str | None:
    """What it says, be it no UTF-8, which nobody checks; None where that is nothing."""
    if isinstance(value, pa.StringScalar | pa.LargeStringScalar):
        text = _first(value, _MOST_NAME_BYTES)
        return None if text is None else os.fsdecode(text)
    return str(value.as_py()) if value.is_valid and pa.types.is_integer(value.type) else None


def _first(value: pa.Scalar, most_bytes: int) -> bytes | None:
    buffer: pa.Buffer | None = value.as_buffer()
    return None if buffer is None else buffer.slice(0, min(most_bytes, buffer.size)).to_pybytes()


def _has_images(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        names = [kind.field(each).name for each in range(kind.num_fields)]
        return names.count("bytes") == 1 and _is_binary(kind.field(names.index("bytes")).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_names(field: pa.Field) -> bool:
    kind = field.type
    return any(fits(kind) for fits in (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer))


def _chosen(schema: pa.Schema, wanted: str | None, usual: tuple[str, ...], fits: Any, flag: str) -> str:
    fitting = [field.name for field in schema if fits(field)]
    if wanted is not None:
        if wanted not in fitting:
            raise DatasetError(f"{flag} should be one of {', '.join(fitting) or 'none there is'}, not {wanted}")
        return _single(schema, wanted, flag)
    found = next((name for name in usual if name in fitting), None)
    if found is None and len(fitting) != 1:
        raise DatasetError(f"{flag} has to say which column it is; these could be: {', '.join(fitting) or 'none'}")
    return _single(schema, found or fitting[0], flag)


def _single(schema: pa.Schema, name: str, flag: str) -> str:
    if schema.names.count(name) > 1:
        raise DatasetError(f"{flag} has to say which column it is; several are called {name}")
    return name
