"""What is sent over a socket, cut into frames: each is its length and that many bytes."""

from __future__ import annotations

import socket
import struct

_LENGTH = struct.Struct("!Q")
_MOST_AT_ONCE = 1 << 18


def framed(*parts: bytes) -> bytes:
    """The bytes of one frame."""
    return b"".join((_LENGTH.pack(sum(map(len, parts))), *parts))


def unframed(frame: bytes) -> bytes:
    """What is in one frame, which came as a whole.

    Raises:
        ValueError: it did not.
    """
    if len(frame) < _LENGTH.size or _LENGTH.unpack_from(frame)[0] != len(frame) - _LENGTH.size:
        raise ValueError(f"{len(frame)} bytes are no frame")
    return frame[_LENGTH.size :]


class Frames:
    """Takes bytes as they come and gives frames.

    Args:
        most_bytes: longest frame to make room for, where the other side is not to be trusted.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most_bytes = most_bytes
        self._came: bytes | bytearray = b""
        self._start = 0

    def feed(self, data: bytes) -> None:
        """Add what came."""
        if not self._came:  # as nearly always: frames are sent as a whole
            self._came = data
            return
        if self._start or isinstance(self._came, bytes):
            self._came, self._start = bytearray(memoryview(self._came)[self._start :]), 0
        self._came += data

    def take(self) -> bytes | None:
        """The next frame, if all of it has come.

        Raises:
            ValueError: it is longer than `most_bytes`.
        """
        body = self._start + _LENGTH.size
        if len(self._came) < body:
            return None
        (length,) = _LENGTH.unpack_from(self._came, self._start)
        if self._most_bytes is not None and length > self._most_bytes:
            raise ValueError(f"a frame of {length} bytes")
        if len(self._came) < body + length:
            return None
        end = self._start = body + length
        frame = bytes(memoryview(self._came)[body:end])
        if end == len(self._came):  # it may have been large
            self._came, self._start = b"", 0
        return frame


def receive(connection: socket.socket, frames: Frames) -> bytes:
    """Wait for the next frame.

    Args:
        connection: to the other side.
        frames: that came from it.

    Raises:
        EOFError: the other side has closed the connection.
        TimeoutError: nothing came within the socket's timeout.
        OSError: the connection is broken.
        ValueError: the frame is too long.
    """
    while (frame := frames.take()) is None:
        data = connection.recv(_MOST_AT_ONCE)
        if not data:
            raise EOFError
        frames.feed(data)
    return frame
