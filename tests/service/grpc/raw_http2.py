"""A client of HTTP/2 that does what well-kept ones do not: it reads nothing, or never ends a message (RFC 9113)."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4


class RawClient:
    """One connection.

    Args:
        port: of the server.
        window: bytes of an answer that the server may send.
        source: address that it comes from.
    """

    def __init__(self, port: int, window: int, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)))
        self._stream = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, path: str, message: bytes = b"", size: int | None = None, **metadata: bytes) -> None:
        """Call a method with a message that is told to have some size, by default its own, and is as long as it is."""
        headers = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": path.encode(),
            b":authority": b"test",
            b"te": b"trailers",
            b"content-type": b"application/grpc",
        } | {name.encode(): value for name, value in metadata.items()}
        block = b"".join(b"\0" + _string(name) + _string(value) for name, value in headers.items())
        complete = size is None or size == len(message)
        body = struct.pack(">BI", 0, len(message) if size is None else size) + message
        self._socket.sendall(
            _frame(_HEADERS, _END_HEADERS, self._stream, block)
            + _frame(_DATA, _END_STREAM if complete else 0, self._stream, body)
        )
        self._stream += 2


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _string(value: bytes) -> bytes:
    assert len(value) < 127
    return bytes([len(value)]) + value
