"""A server whose latencies are known beforehand, to check the load generator against.

    python -m bench.simulated_server FD

FD is a listening socket it inherits. What a path does with a request is the function of the same name.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

BURN_S = 0.001
DELAY_S = 0.02
SERVICE_S = 0.01
STALL_AFTER_S, STALL_S = 1.0, 0.5

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class SimulatedServer:
    """An ASGI application."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        arrived = time.monotonic()
        while (await receive()).get("more_body"):
            pass
        paths = {
            "/at_once": self.at_once,
            "/burn": self.burn,
            "/delay": self.delay,
            "/queue": self.queue,
            "/stall": self.stall,
        }
        await paths[scope["path"]](arrived)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async def at_once(self, _: float) -> None:
        """Answer."""

    async def burn(self, _: float) -> None:
        """Keep the processor busy for BURN_S, as inference does."""
        end = time.process_time() + BURN_S
        while time.process_time() < end:
            pass

    async def delay(self, arrived: float) -> None:
        """Answer DELAY_S after the arrival, however many requests there are."""
        await _until(arrived + DELAY_S)

    async def queue(self, arrived: float) -> None:
        """Serve one request after another, each for SERVICE_S: an M/D/1 queue where arrivals are random."""
        self._free_at = max(self._free_at, arrived) + SERVICE_S
        await _until(self._free_at)

    async def stall(self, _: float) -> None:
        """Answer, and STALL_AFTER_S later do nothing at all for STALL_S."""
        asyncio.get_running_loop().call_later(STALL_AFTER_S, time.sleep, STALL_S)


async def _until(when: float) -> None:
    await asyncio.sleep(max(0.0, when - time.monotonic()))


@contextmanager
def simulated_server() -> Iterator[str]:
    """The server as a process of its own; gives its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        # Whoever connects before the server is up waits in the backlog of the socket.
        command = [sys.executable, "-m", "bench.simulated_server", str(listening.fileno())]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()])
        port = listening.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    # Not uvloop, which accepts one connection for each turn of its loop: with a turn as long as all the requests in it,
    # the last of 64 clients would wait two seconds for its first answer.
    config = uvicorn.Config(SimulatedServer(), loop="asyncio", access_log=False, log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
