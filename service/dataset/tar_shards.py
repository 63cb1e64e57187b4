"""Image files in tar files, as WebDataset lays them out: read from front to back, one member in memory at a time."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

from service.dataset.files import IMAGE_SUFFIXES
from service.dataset.items import Item, Unreadable

SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""How the names of shards end."""

File = IO[bytes] | gzip.GzipFile

# What reading raises where a file is damaged; numbers that are none, or too large, the module does not look for.
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError)
_BUFFER_BYTES = 262_144
# Of one member, with its long name and the like: the module reads all of that into memory.
_MOST_HEADER_BYTES = 65_536


class _Member(NamedTuple):
    """A member, whose data begin at a place in the file."""

    name: str
    at: int
    size: int
    is_file: bool


class _Headers:
    """A file of which the module gets the headers of one member at a time, and no more than these may have.

    It is read forwards only: to go back in a compressed file means to begin it anew.
    """

    def __init__(self, file: File) -> None:
        self._file, self._left, self._first = file, _MOST_HEADER_BYTES, b""
        self.seek, self.tell, self.write, self.close = file.seek, file.tell, file.write, file.close

    def read(self, size: int) -> bytes:
        self._left -= size
        if size < 0 or self._left < 0:
            raise tarfile.ReadError(f"the headers of a member have more than {_MOST_HEADER_BYTES:,} bytes, or none")
        first, self._first = self._first, b""
        return first or self._file.read(size)

    def begin(self, first: bytes) -> None:
        """Turn to the member whose first block this is; the file goes on behind it."""
        self._left, self._first = _MOST_HEADER_BYTES, first


class TarShard:
    """The members with names of image files, in the order in which they stand in the file.

    Args:
        path: of the file.
        name: unique in its input.
        most_bytes: that are read of a member, and one more.
    """

    def __init__(self, path: Path, name: str, most_bytes: int) -> None:
        self._path, self._most_bytes = path, most_bytes
        self.name = name
        self.size = path.stat().st_size

    def items(self, start: int) -> Iterator[Item]:
        """See `Source`."""
        count = 0
        try:
            with ExitStack() as stack:
                raw = stack.enter_context(self._path.open("rb", _BUFFER_BYTES))
                compressed = self._path.suffix.lower() in (".gz", ".tgz")
                file: File = stack.enter_context(gzip.GzipFile(fileobj=raw)) if compressed else raw
                for member in _members(file):
                    count += 1
                    if count > start:
                        most = min(member.size, self._most_bytes + 1)
                        file.seek(member.at)
                        content = file.read(most)
                        if len(content) < most:
                            raise EOFError("it ends in the middle of an image")
                        yield Item(member.name, content, member.at + most if file is raw else raw.tell())
        except _DAMAGE as error:
            if count >= start:
                told = f"the shard cannot be read after {count} of its images: {error or type(error).__name__}"
                yield Item(self.name, Unreadable(told, "corrupt_shard"), self.size)


def _members(file: File) -> Iterator[_Member]:
    """The images among the members. None is kept, as the module would in its list of all that it has read.

    Raises:
        TarError, OSError, EOFError, zlib.error: what follows cannot be read.
    """
    headers = _Headers(file)
    with tarfile.open(fileobj=headers, mode="r:") as tar:
        at = 0
        while True:
            file.seek(at)
            header = file.read(tarfile.BLOCKSIZE)
            # The module takes a damaged header for the end, which is a block of zeros, or of nothing.
            if not header.strip(b"\0"):
                if not header and file.seek(0, os.SEEK_END) < at:
                    raise EOFError("it ends in the middle of a member")
                return
            headers.begin(header)
            member = _read(tar)
            at = member.at + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if member.is_file and _is_image(member.name):
                yield member


def _read(tar: tarfile.TarFile) -> _Member:
    tar.pax_headers = {}  # what is said of all members that follow tells of no image, and would add up
    told = tarfile.TarInfo.fromtarfile(tar)
    if told.issparse() or told.size < 0:
        raise tarfile.ReadError("it has a sparse file, or one of a negative size")
    has_data = not (told.isdir() or told.issym() or told.islnk() or told.isdev())
    return _Member(told.name, told.offset_data, told.size if has_data else 0, told.isreg())


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.rpartition("/")[2].startswith(".")
