"""The service on a socket, and clients that write HTTP by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from service.access.keys import KeySource
from service.app import create_app
from service.classify.context import Context
from service.engine.runtimes.base import Runtime
from service.http.listening import taken_port
from service.http.server import HttpServer
from service.settings import Settings
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.server import pool
from tests.told_metrics import told

if TYPE_CHECKING:
    from service.observability.tracing import Tracing


@dataclass
class RunningServer:
    """A server that is running.

    Attributes:
        context: of its application.
        server: which can be told to stop.
        thread: that it runs in.
        port: that it listens on.
    """

    context: Context
    server: HttpServer
    thread: Thread
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def stop(self) -> None:
        """Begin to stop."""
        self.server.stop()

    def requests(self, outcome: str, route: str = "/classify") -> float:
        """How many requests are counted with this outcome."""
        return _value(self, "aig_requests_total", outcome=outcome, route=route)

    def images(self, outcome: str) -> float:
        """How many images are."""
        return _value(self, "aig_images_total", outcome=outcome)


@dataclass
class HttpAnswer:
    """One answer; its body is read as JSON."""

    status: int
    headers: dict[str, str]
    body: Any


@contextmanager
def http_serving(
    runtime: Runtime, keys: KeySource | None = None, tracing: Tracing | None = None, **settings: object
) -> Iterator[RunningServer]:
    """A started server."""
    chosen = Settings(**({"workers": 1, "max_batch": 1, "max_wait_ms": 0, "objective_ms": 1e6} | settings))
    app = create_app(chosen, pool(runtime, chosen), keys, tracing)
    server = HttpServer(app, app.context, app.turns)
    with taken_port(["127.0.0.1"], 0) as listeners:
        thread = Thread(target=server.run, args=(listeners,))
        thread.start()
        running = RunningServer(app.context, server, thread, listeners[0].getsockname()[1])
        wait_until(lambda: app.context.engine.ready and server.uvicorn.started)
        try:
            yield running
        finally:
            server.stop()
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
        piece = connection.recv(missing)
        assert piece, body
        body += piece
    return HttpAnswer(int(first.split()[1]), headers, json.loads(body))


def _value(server: RunningServer, name: str, **labels: str) -> float:
    return told(server.context.metrics.render().decode()).get((name, frozenset(labels.items())), 0.0)


# The content type of `form`.
EDGE = "multipart/form-data; boundary=edge"


def ask(server: RunningServer, request: bytes) -> HttpAnswer:
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
