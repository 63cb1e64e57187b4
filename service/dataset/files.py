"""Image files in a folder, or named in a list."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from artifact.formats import SUFFIXES
from service.dataset.items import Dataset, DatasetError, Item, Unreadable

IMAGE_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""How the names of image files end, in lower case."""

# Of a list, in bytes: no path is longer.
_LONGEST_LINE = 65_536


class Folder:
    """The image files in a folder and below, by their paths, in the order of these as bytes.

    The paths are kept in a database without a name, which is on the disk and gone with this process: of millions of
    them no list fits into memory. What is hidden is left out, and links to folders are not followed.

    Args:
        path: of the folder.
        most_bytes: that are read of a file, and one more.

    Raises:
        DatasetError: the folder, or one below it, cannot be looked through.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path, self._most_bytes = path, most_bytes
        self.name = path.name
        # An empty name stands for a temporary file (sqlite.org/inmemorydb.html, "Temporary Databases").
        self._listing = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._listing.close)
        self._listing.execute("PRAGMA journal_mode = OFF")
        self._listing.execute("CREATE TABLE files (path BLOB PRIMARY KEY) WITHOUT ROWID")
        try:
            self._listing.executemany("INSERT INTO files VALUES (?)", ((found,) for found in _found(path)))
        except sqlite3.OperationalError as error:
            raise DatasetError(f"the paths in {path} cannot be kept in a temporary file: {error}") from error
        except OSError as error:
            raise DatasetError(f"{os.fsdecode(error.filename)} cannot be looked through: {error.strerror}") from error
        ((self.size,),) = self._listing.execute("SELECT count(*) FROM files")

    def dataset(self) -> Dataset:
        """The folder as all that is to be classified."""
        digest = hashlib.sha256()
        for (path,) in self._paths(0):
            digest.update(path + b"\0")
        return Dataset("files", digest.hexdigest(), [self], self.size)

    def items(self, start: int) -> Iterator[Item]:
        """See `Source`."""
        for number, (path,) in enumerate(self._paths(start), start + 1):
            name = os.fsdecode(path)
            yield Item(name, read_file(self._path / name, self._most_bytes), number)

    def _paths(self, start: int) -> Iterator[tuple[bytes]]:
        return self._listing.execute("SELECT path FROM files ORDER BY path LIMIT -1 OFFSET ?", (start,))


class PathList:
    """The files that a text file names, a path a line, from its own folder on where the path is not absolute.

    Args:
        path: of the text file.
        most_bytes: that are read of an image, and one more.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        self._path, self._most_bytes = path, most_bytes
        self.name = path.name
        self.size = sum(1 for _ in self._lines())

    def dataset(self) -> Dataset:
        """The list as all that is to be classified."""
        with self._path.open("rb") as file:
            return Dataset("list", hashlib.file_digest(file, "sha256").hexdigest(), [self], self.size)

    def items(self, start: int) -> Iterator[Item]:
        """See `Source`."""
        for number, name in enumerate(islice(self._lines(), start, None), start + 1):
            yield Item(name, read_file(self._path.parent / name, self._most_bytes), number)

    def _lines(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if line.strip():
                    yield os.fsdecode(line.rstrip(b"\r\n"))


def read_file(path: Path, most_bytes: int) -> bytes | Unreadable:
    """The content of a file, of a larger one only so many bytes and one more; or why it cannot be read."""
    try:
        # Without waiting for a writer, as a pipe would have it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            told = os.fstat(descriptor)
            if not stat.S_ISREG(told.st_mode):
                return Unreadable("it is no regular file")
            return file.read(min(told.st_size, most_bytes) + 1) or b""
    except (OSError, ValueError) as error:  # of the last kind are paths with a null byte
        return Unreadable(getattr(error, "strerror", None) or str(error))


def _found(top: Path) -> Iterator[bytes]:
    """The paths of the image files below a folder, from there on."""
    folders = [b""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.fsencode(top) + b"/" + folder) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(folder + entry.name + b"/")
                elif os.fsdecode(entry.name).lower().endswith(IMAGE_SUFFIXES):
                    yield folder + entry.name
