"""A small HTTP server that answers as a test tells it to, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread

# From the number and the body of a request to the bytes of its answer. Where these ask for it, or are none, the
# connection is closed.
Script = Callable[[int, bytes], Awaitable[bytes]]


def answer(body: bytes = b"{}", status: str = "200 OK", *headers: str) -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ScriptedServer:
    """Attributes:
    bodies: of the requests that it has read.
    """

    def __init__(self, script: Script, reads_bodies: bool) -> None:
        self.bodies: list[bytes] = []
        self.url = ""
        self._script, self._reads_bodies = script, reads_bodies
        self._number = 0

    async def run(self, up: Future[Callable[[], None]]) -> None:
        """Serve until the function that `up` is given is called."""
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/classify?top_k=1"
        up.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
        await stopped.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                assert head.startswith("post /classify?top_k=1 http/1.1\r\n")
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                self.bodies.append(await reader.readexactly(length) if self._reads_bodies else b"")
                self._number += 1
                answered = await self._script(self._number - 1, self.bodies[-1])
                writer.write(answered)
                await writer.drain()
                if not answered or b"Connection: close" in answered:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()


@contextmanager
def scripted_server(script: Script, reads_bodies: bool = True) -> Iterator[ScriptedServer]:
    """The server, in a thread of its own."""
    server, up = ScriptedServer(script, reads_bodies), Future[Callable[[], None]]()
    thread = Thread(target=lambda: asyncio.run(server.run(up)))
    thread.start()
    stop = up.result(10)
    try:
        yield server
    finally:
        stop()
        thread.join(10)
