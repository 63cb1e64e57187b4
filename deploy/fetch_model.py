"""Fetches a tar file of models over HTTP, and unpacks it if it has the right digest.

An init container runs it with nothing but Python: python fetch_model.py URL SHA256 FOLDER MOST_MIB
"""

from __future__ import annotations

import hashlib
import lzma
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from http.client import HTTPException, InvalidURL
from pathlib import Path
from time import monotonic
from typing import IO
from urllib.parse import urlsplit
from urllib.request import urlopen

_CHUNK_BYTES = 1_048_576
# How long the server may be silent, and how long all of it may take.
_TIMEOUT_S, _LONGEST_S = 30.0, 3600.0
_MOST_FILES = 10_000


class FetchError(Exception):
    """What was asked for cannot be had; the message says why."""


def fetch(url: str, sha256: str, folder: Path, most_bytes: int) -> None:
    """Fetch a file and unpack it into a folder.

    Args:
        url: of a tar file, compressed or not.
        sha256: its digest, in hexadecimal.
        folder: that is there.
        most_bytes: of the file, and of what it holds.

    Raises:
        FetchError: nothing was unpacked that has another digest.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise FetchError("this is no URL") from error
    if parts.scheme not in ("http", "https"):
        raise FetchError("this is no URL of HTTP")
    if "@" in parts.netloc:
        raise FetchError("a URL with a user or a password is not taken")
    told = f"{parts.hostname}{parts.path}"  # a signature may stand in the rest
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            found = _copy(url, file, most_bytes)
        except InvalidURL as error:  # whose message has all of it
            raise FetchError(f"{told} is no URL that can be asked for") from error
        except (OSError, HTTPException) as error:
            raise FetchError(f"{told} cannot be fetched: {error}") from error
        if found != sha256.lower():
            raise FetchError(f"{told} has the digest {found}, not {sha256}")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file) as archive:
                _unpack(archive, folder, most_bytes)
        except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
            raise FetchError(f"{told} cannot be unpacked: {error}") from error


def _copy(url: str, file: IO[bytes], most_bytes: int) -> str:
    """Write what a URL has to a file, and return its digest."""
    digest, size, give_up = hashlib.sha256(), 0, monotonic() + _LONGEST_S
    with urlopen(url, timeout=_TIMEOUT_S) as answer:
        while chunk := answer.read1(_CHUNK_BYTES):
            size += len(chunk)
            if monotonic() > give_up:
                raise FetchError(f"the file took more than {_LONGEST_S:g} seconds")
            if size > most_bytes:
                raise FetchError(f"the file has more than {most_bytes} bytes")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _unpack(archive: tarfile.TarFile, folder: Path, most_bytes: int) -> None:
    """Unpack files and folders; the filter refuses what would lie outside, devices, and the like."""
    size = 0
    for number, member in enumerate(archive, 1):
        size += member.size
        if size > most_bytes or number > _MOST_FILES:
            raise FetchError(f"the archive holds more than {most_bytes} bytes or {_MOST_FILES} files")
        archive.extract(member, folder, filter="data")


def main(argv: Sequence[str]) -> int:
    """Run the command line; return its exit status."""
    url, sha256, folder, most_mib = argv
    try:
        fetch(url, sha256, Path(folder), int(most_mib) * 1_048_576)
    except FetchError as error:
        print("error:", error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
