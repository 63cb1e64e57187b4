"""API keys: the file that lists them, what each may do, and telling whose a key is.

The file holds only SHA-256 digests. Passwords want a slow hash because they can be guessed; a key is 256 random bits,
which nobody guesses however fast the hash, and a slow one would be work that every stranger's request could cause.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.settings import share

# By which scanners of source code recognise one that was committed.
_PREFIX = "aig_"
_RANDOM_BYTES = 32


class KeyFileError(ValueError):
    """The file of keys cannot be used; the message says why, and holds nothing of what the file says."""


class ApiKey(BaseModel):
    """One key, and the limits of whoever holds it; a limit that is None is none.

    Attributes:
        name: of its holder, for logs and metrics.
        sha256: of the key, in hexadecimal.
        metrics: whether it opens /metrics, which tell of every key.
        admin: whether it may load and unload models.
        models: names of the models that it is for; by default all.
        requests_at_once: most requests in progress.
        images_per_second: most images, on average; those of a batch count each.
        burst_images: most images in one go after a pause; by default those of one second.
        macs_per_window: most multiply-accumulates spent on its images in a window.
        window_seconds: length of that window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    metrics: bool = False
    admin: bool = False
    models: tuple[str, ...] | None = None
    requests_at_once: int | None = Field(default=None, ge=1)
    images_per_second: float | None = Field(default=None, gt=0)
    burst_images: int | None = Field(default=None, ge=1)
    macs_per_window: int | None = Field(default=None, ge=1)
    window_seconds: float = Field(default=3600, gt=0)

    def part(self, number: int, count: int) -> ApiKey:
        """Its limits in one of several processes; those of all together are the limits of the key.

        Raises:
            KeyFileError: one cannot be divided into so many.
        """
        burst = self.burst_images or (math.ceil(self.images_per_second) if self.images_per_second else None)
        totals = {
            "requests_at_once": self.requests_at_once,
            "burst_images": burst,
            "macs_per_window": self.macs_per_window,
        }
        parts: dict[str, float] = {}
        for limit, total in totals.items():
            if total is None:
                continue
            if total < count:
                raise KeyFileError(f"{limit} of the key {self.name} is {total}, too few for {count} front ends")
            parts[limit] = share(total, number, count)
        if self.images_per_second:
            parts["images_per_second"] = self.images_per_second / count
        return self.model_copy(update=parts)


class KeySource(Protocol):
    """Where to ask for the keys, whenever one is presented."""

    def current(self) -> Keyring:
        """The keys there are now; the same object as before where they have not changed."""


class Keyring:
    """Keys that stay as they are.

    Args:
        keys: each with a name and a digest of its own.
    """

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self.keys = tuple(keys)

    def current(self) -> Keyring:
        """These."""
        return self

    def find(self, presented: bytes) -> ApiKey | None:
        """The key that was presented. How long it takes tells nothing: every digest is compared to its end."""
        digest = hashlib.sha256(presented).hexdigest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def read_keys(path: Path) -> Keyring:
    """Read a file of keys, in TOML: a table `[keys.NAME]` for each, and limits for all in `[limits]`.

    Raises:
        KeyFileError: it is missing, malformed, or names no key.
    """
    if path.exists() and not path.is_file():  # to read a pipe again may take for ever
        raise KeyFileError(f"{path} is no regular file")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "; make one with python -m service key NAME" if isinstance(error, FileNotFoundError) else ""
        raise KeyFileError(f"no keys in {path}: {error.strerror or error}{remedy}") from error
    except (ValueError, RecursionError) as error:
        raise KeyFileError(f"{path} is not TOML: {error}") from error
    limits, named = tables.pop("limits", {}), tables.pop("keys", {})
    if tables or not isinstance(limits, dict) or not isinstance(named, dict):
        raise KeyFileError(f"{path} may have the tables [limits] and [keys.NAME], and no others")
    if not named:
        raise KeyFileError(f"{path} names no key; make one with python -m service key NAME")
    keys = [_key(path, name, limits, table) for name, table in named.items()]
    if len({key.sha256 for key in keys}) != len(keys):
        raise KeyFileError(f"{path} has the same key under two names")
    return Keyring(keys)


def _key(path: Path, name: str, limits: dict[str, object], table: object) -> ApiKey:
    if not isinstance(table, dict):
        raise KeyFileError(f"{path}: keys.{name} is no table")
    try:
        return ApiKey.model_validate(limits | table | {"name": name})
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        raise KeyFileError(f"{path}: keys.{name}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def make_key(name: str) -> tuple[str, str]:
    """A new key, and the table that belongs into the file of keys.

    Raises:
        KeyFileError: a key cannot have that name.
    """
    secret = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    try:
        key = ApiKey(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest())
    except ValidationError as error:
        raise KeyFileError("a name has 1 to 64 letters, digits, dots, hyphens and underscores") from error
    # Quoted, because in TOML a dot in a name that is not would begin a table in it.
    return secret, f'[keys."{key.name}"]\nsha256 = "{key.sha256}"'
