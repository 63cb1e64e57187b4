"""A small HTTP server that fails as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    """A request, with the names of its headers in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


class FakeServer:
    """Answers the first request as the first behaviour does and so on, and all further ones as the last.

    Attributes:
        asked: the requests that it has read.
    """

    def __init__(self, behaviours: tuple[Behaviour, ...]) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self._behaviours = behaviours

    async def run(self, up: Future[Callable[[], None]]) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        up.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
        await stopped.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append(Asked(line, headers, body))
                await self._behaviours[min(len(self.asked), len(self._behaviours)) - 1](writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has left, or the test
        finally:
            writer.close()


@contextmanager
def fake_server(*behaviours: Behaviour) -> Iterator[FakeServer]:
    """The server, in a thread of its own."""
    server, up = FakeServer(behaviours), Future[Callable[[], None]]()
    thread = Thread(target=lambda: asyncio.run(server.run(up)))
    thread.start()
    stop = up.result(10)
    try:
        yield server
    finally:
        stop()
        thread.join(10)


def answers(body: Any, status: int = 200, **headers: str) -> Behaviour:
    """Answer with bytes, or with JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()

    return behave


async def resets(writer: asyncio.StreamWriter) -> None:
    """Begin to answer, and reset the connection."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"predictions": [')
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def is_silent(_: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def drips(writer: asyncio.StreamWriter) -> None:
    """Answer with a byte at a time, each sooner than a client would give up, without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)
