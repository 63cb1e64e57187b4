"""A socket to a worker process, on the event loop: frames go out in the call that sends them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from service.engine.ipc.frames import Frames


class Channel(asyncio.Protocol):
    """One socket.

    Args:
        here: this side of it.
        frames: that came from the other side.
        on_frame: called with every frame, which may close the connection.
        on_end: called, once, when the other side has hung up or begun a frame that is too long; not after `close`.
    """

    def __init__(
        self, here: socket.socket, frames: Frames, on_frame: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> None:
        self._socket = here
        self._frames = frames
        self._on_frame = on_frame
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None

    async def open(self) -> None:
        """Begin to listen."""
        self._socket.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._socket)

    def send(self, frame: bytes) -> bool:
        """Send a frame, and say whether the other side is still there. It never waits."""
        transport = self._transport
        if transport is None:
            return False
        if not transport.get_write_buffer_size():
            # By itself the transport would wait for the end of the loop's turn, and not tell.
            try:
                sent = self._socket.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            if sent == len(frame):
                return True
            frame = frame[sent:]
        transport.write(frame)
        return True

    def close(self) -> None:
        """Hang up."""
        transport, self._transport = self._transport, None
        if transport:
            transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The loop listens."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """The other side says something."""
        self._frames.feed(data)
        while self._transport and (frame := self._next()) is not None:
            self._on_frame(frame)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (whatever it was)
        """The other side is gone."""
        self._end()

    def _next(self) -> bytes | None:
        try:
            return self._frames.take()
        except ValueError:
            self._end()
            return None

    def _end(self) -> None:
        if self._transport:
            self.close()
            self._on_end()
