"""The service behind its own HTTP protocol, on a socket, and clients that write HTTP by hand."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from service.admission import Admission
from service.app import create_app
from service.context import Context
from service.engine.runtime import Runtime
from service.http_protocol import guarded_protocol
from service.settings import Settings
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.server import pool


@dataclass
class HttpServer:
    """A server that is running.

    Attributes:
        context: of its application.
        uvicorn: which can be told to stop.
        thread: that it runs in.
        passed_on: paths of the requests that came to the application.
    """

    context: Context
    uvicorn: uvicorn.Server
    thread: Thread
    passed_on: list[str]

    def connect(self) -> socket.socket:
        port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        return socket.create_connection(("127.0.0.1", port), PATIENCE_S)

    def stop(self) -> None:
        """Begin to stop."""
        self.uvicorn.should_exit = True

    def requests(self, outcome: str, route: str = "/classify") -> float:
        """How many requests are counted with this outcome."""
        return _value(self, rf'aig_requests_total\{{outcome="{outcome}",route="{route}"\}}')

    def images(self, outcome: str) -> float:
        """How many images are."""
        return _value(self, rf'aig_images_total\{{outcome="{outcome}"\}}')


@dataclass
class HttpAnswer:
    """One answer; its body is read as JSON."""

    status: int
    headers: dict[str, str]
    body: Any


@contextmanager
def http_serving(runtime: Runtime, direct: bool = True, **settings: object) -> Iterator[HttpServer]:
    """A started server; where it is not direct, the application answers everything."""
    chosen = Settings(**({"workers": 1, "max_batch": 1, "max_wait_ms": 0} | settings))
    app = create_app(chosen, pool(runtime, chosen))
    app.state.context = context = replace(app.state.context, direct=direct)
    passed_on: list[str] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            passed_on.append(scope["path"])
        await app(scope, receive, send)

    protocol: Any = guarded_protocol(Admission(context).guard)
    config = uvicorn.Config(
        watched,
        port=0,
        log_config=None,
        http=protocol,
        server_header=False,
        access_log=False,
        timeout_graceful_shutdown=math.ceil(chosen.drain_seconds),
    )
    server = uvicorn.Server(config)
    thread = Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield HttpServer(context, server, thread, passed_on)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def post(body: bytes, *lines: str, target: str = "/classify", kind: str = "image/png") -> bytes:
    """A request with these further lines in its head."""
    head = [f"POST {target} HTTP/1.1", "host: a", f"content-type: {kind}", f"content-length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def read_answer(connection: socket.socket) -> HttpAnswer:
    """Read one answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines)
    body = b""
    while missing := int(headers["content-length"]) - len(body):
        body += connection.recv(missing)
    return HttpAnswer(int(first.split()[1]), headers, json.loads(body))


def _value(server: HttpServer, series: str) -> float:
    found = re.search(rf"^{series} (\S+)$", server.context.metrics.render().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


# The content type of `form`.
EDGE = "multipart/form-data; boundary=edge"


def ask(server: HttpServer, request: bytes) -> HttpAnswer:
    """The answer to one request on a connection of its own, which ends where that is announced."""
    with server.connect() as connection:
        connection.sendall(request)
        answer = read_answer(connection)
        if answer.headers.get("connection") == "close":
            assert connection.recv(1) == b""
        return answer


def part(file: bytes, name: str = "file", more: str = '; filename="a.png"') -> bytes:
    """A part of a form with a file."""
    return f'--edge\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + file + b"\r\n"


def form(*parts: bytes, end: bytes = b"--edge--\r\n", kind: str = EDGE, target: str = "/classify") -> bytes:
    """A request with a form of these parts."""
    return post(b"".join(parts) + end, target=target, kind=kind)
