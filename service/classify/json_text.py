"""JSON that clients send: no longer, and of no more values, than the event loop reads in some 20 ms."""

from __future__ import annotations

import binascii
from typing import Any

import orjson

from service.errors import ApiError

MOST_BYTES = 8_388_608
# 8 MiB of base64 are read and decoded in 20 ms, so many numbers in 10 ms. A list takes as long as several numbers, a
# field as long as many.
_MOST_VALUES, _MOST_LISTS, _MOST_FIELDS = 200_000, 10_000, 1000


class JsonText:
    """JSON (RFC 8259) of which not all has come yet. It is refused as soon as it is known to be too much."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = self._values = self._lists = self._fields = 0

    def take(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            ApiError: they are too many, or tell of too many values.
        """
        self._size += len(piece)
        self._values += piece.count(b",")
        self._lists += piece.count(b"[") + piece.count(b"{")
        self._fields += piece.count(b":")
        if self._size > MOST_BYTES:
            raise _too_large(f"{MOST_BYTES} bytes")
        if self._values > _MOST_VALUES:
            raise _too_large(f"{_MOST_VALUES} values")
        if self._lists > _MOST_LISTS:
            raise _too_large(f"{_MOST_LISTS} lists")
        if self._fields > _MOST_FIELDS:
            raise _too_large(f"{_MOST_FIELDS} fields")
        self._pieces.append(piece)

    def value(self) -> Any:
        """What it says, when all of it has been taken.

        Raises:
            ApiError: it is no JSON.
        """
        text = b"".join(self._pieces)
        self._pieces.clear()
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ApiError(400, "malformed_request", f"the JSON cannot be read: {error}") from error


def decoded_base64(text: object, where: str) -> bytes:
    """The bytes that a string says in base64 (RFC 4648, section 4).

    Raises:
        ApiError: it is no string, or no base64; the message names where it stands.
    """
    if not isinstance(text, str):
        raise ApiError(400, "malformed_request", f"{where} must be a string with base64")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # also of letters that are not ASCII
        raise ApiError(400, "malformed_request", f"{where} is no base64: {error}") from error


def _too_large(most: str) -> ApiError:
    said = f"JSON may have at most {most} here; send images as files and tensors as binary data"
    return ApiError(413, "json_too_large", said)
