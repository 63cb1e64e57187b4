"""The file of API keys while the service runs: read again when it has changed."""

from __future__ import annotations

import logging
from pathlib import Path

from service.access.keys import KeyFileError, Keyring, read_keys

_log = logging.getLogger(__name__)


class KeyFile:
    """The keys that a file lists.

    To look whether it has changed takes microseconds, so that is done whenever the keys are asked for: a key that was
    removed stops working at once.

    Args:
        path: of the file, for `read_keys`.
        part: which of how many front ends this is; each grants its part of every limit.

    Raises:
        KeyFileError: it cannot be used.
    """

    def __init__(self, path: Path, part: tuple[int, int] = (0, 1)) -> None:
        self._path = path
        self._part = part
        self._seen = _state(path)
        self._keyring = self._read()

    def current(self) -> Keyring:
        """The keys there are now. Where the file cannot be used, which is logged once, those that there were."""
        state = _state(self._path)
        if state != self._seen:
            self._seen = state
            try:
                self._keyring = self._read()
                _log.info("%d API keys in %s, which has changed", len(self._keyring.keys), self._path)
            except KeyFileError as error:
                _log.error("the API keys stay as they were: %s", error)
        return self._keyring

    def _read(self) -> Keyring:
        keyring, (number, count) = read_keys(self._path), self._part
        return keyring if count == 1 else Keyring([key.part(number, count) for key in keyring.keys])


def _state(path: Path) -> tuple[int, ...] | None:
    """Something that is another when the file is; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
