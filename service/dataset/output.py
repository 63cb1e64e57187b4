"""The folder of answers: parts that appear whole or not at all, and the record of what they are parts of."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.dataset.items import DatasetError

# Names that begin like this are none of a part, to those who read the folder.
_RUN, _LOCK, _UNFINISHED = "_run.json", "_lock", ".unfinished-"
_PART = re.compile(r"part-(\d{5,})-(\d{5,})\.parquet")
_METADATA = b"part"  # of a part's schema


@dataclass(frozen=True)
class Part:
    """A chunk of the images of one source, always the same ones.

    Attributes:
        source: number of the source.
        chunk: number of the part in it.
    """

    source: int
    chunk: int

    @property
    def file_name(self) -> str:
        """Sorts like the input."""
        return f"part-{self.source:05d}-{self.chunk:05d}.parquet"


def part_names(source: int) -> str:
    """A pattern for the files of all parts of a source."""
    return f"part-{source:05d}-*.parquet"


@dataclass
class Tally:
    """What came of images.

    Attributes:
        images: how many, those that failed included.
        errors: how many of them failed, by the type of the error.
        macs: multiply-accumulates of the others.
    """

    images: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    macs: int = 0

    def add(self, images: int, errors: Mapping[str, int], macs: int) -> None:
        """Count more of them."""
        self.images += images
        self.errors.update(errors)
        self.macs += macs


@dataclass
class Finished:
    """The parts of a source that there are.

    Attributes:
        chunks: their numbers.
        last: the number of the source's last part; None where that is not among them.
    """

    chunks: set[int] = field(default_factory=set)
    last: int | None = None

    def next_missing(self, chunk: int) -> int | None:
        """The first part from this number on that there is not; None where the source ends before."""
        while chunk in self.chunks:
            if chunk == self.last:
                return None
            chunk += 1
        return chunk


class Output:
    """The folder, held by this process, or by one that has others write to it as well.

    Args:
        folder: that is there, and held.
        run: all that the answers depend on.
        names: a pattern for the parts that are looked at.
        writer: in the names of unfinished files; tells those who may write the same part apart.

    Attributes:
        finished: the parts there were when it was opened, by the number of their source.
        tally: of all parts.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], names: str = "part-*.parquet", writer: str = "") -> None:
        self._folder, self._writer = folder, writer
        self._digest = sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
        self.finished: dict[int, Finished] = {}
        self.tally = Tally()
        for path in sorted(folder.glob(names)):
            self._read(path)

    def write(self, part: Part, table: pa.Table, errors: Mapping[str, int], macs: int, *, last: bool) -> None:
        """Have a part appear, on the disk for good.

        Args:
            part: which.
            table: its rows.
            errors: how many of them have one, by type.
            macs: multiply-accumulates of the others.
            last: whether its source ends with it.

        Raises:
            DatasetError: it cannot be written.
        """
        told = {"run": self._digest, "rows": table.num_rows, "errors": errors, "macs": macs, "last": last}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA: json.dumps(told)})
        unfinished = self._folder / f"{_UNFINISHED}{self._writer}{part.file_name}"
        try:
            pq.write_table(table, unfinished, compression="zstd")
            _appear(unfinished, self._folder / part.file_name)
        except OSError as error:
            raise DatasetError(f"{self._folder} cannot be written to: {error.strerror or error}") from error
        self.tally.add(table.num_rows, errors, macs)

    def _read(self, path: Path) -> None:
        try:
            metadata = pq.read_metadata(path)
            told = json.loads(metadata.metadata[_METADATA])
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path} is damaged, or not of this program; delete it to have it made again") from error
        name = _PART.fullmatch(path.name)
        if name is None or told["run"] != self._digest:
            raise DatasetError(f"{path} was made with another model, options or input; name another folder")
        finished = self.finished.setdefault(int(name[1]), Finished())
        finished.chunks.add(int(name[2]))
        if told["last"]:
            finished.last = int(name[2])
        self.tally.add(told["rows"], told["errors"], told["macs"])


@contextmanager
def opened_output(folder: Path, run: Mapping[str, Any]) -> Iterator[Output]:
    """Hold a folder of answers, made where there is none, or go on with what is in it.

    Raises:
        DatasetError: it has something else, or answers of another run, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a")  # which leaves somebody else's file of that name as it is
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written to: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of when this process ends, however it does
        except OSError as error:
            raise DatasetError(f"another process is writing to {folder}") from error
        try:
            _require_same(folder, run)
            remove_unfinished(folder)
            output = Output(folder, run)
        except OSError as error:
            raise DatasetError(f"{folder} cannot be used: {error}") from error
        yield output


def remove_unfinished(folder: Path) -> None:
    """Remove what processes have begun to write to a folder that are no more."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


def require_begun(folder: Path, run: Mapping[str, Any]) -> None:
    """Return if another process holds this folder, on whatever machine, for the same run.

    Raises:
        DatasetError: the folder is not there, or what is seen from here differs.
    """
    if not (folder / _RUN).exists():
        raise DatasetError(f"{folder} is not what it is on the machine that the run was begun on; share it")
    _require_same(folder, run)


def _require_same(folder: Path, run: Mapping[str, Any]) -> None:
    """Return if a folder is empty, or of the same run; then it says so."""
    record = folder / _RUN
    try:
        before = dict(json.loads(record.read_bytes()))
    except FileNotFoundError:
        if any(path.name != _LOCK and not path.name.startswith(_UNFINISHED) for path in folder.iterdir()):
            raise DatasetError(f"{folder} has other files; name a new folder, or an empty one") from None
        unfinished = folder / f"{_UNFINISHED}{_RUN}"
        unfinished.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        _appear(unfinished, record)
        return
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{record} cannot be read: {error}") from error
    for name in {**run, **before}:
        if before.get(name) != run.get(name):
            raise DatasetError(
                f"{folder} was begun with another {name.replace('_', ' ')}: {before.get(name)}, now {run.get(name)}; "
                "name another folder, or what it was begun with"
            )


def _appear(unfinished: Path, path: Path) -> None:
    """Give a file its name when all of it is on the disk, and return when the name is there too."""
    for written in (unfinished, path.parent):
        if written is not unfinished:
            unfinished.rename(path)
        descriptor = os.open(written, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
