"""HTTP written and read by hand."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from typing import Any

from tests.runtimes import PATIENCE_S

ATTACKER = "127.0.0.2"
ALIVE = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """The first answer on a connection."""

    status: int
    head: bytes
    body: bytes

    @property
    def error(self) -> Any:
        """The type of the error that it tells."""
        return json.loads(self.body)["error"]["type"]


def connect(port: int, address: str = ATTACKER) -> socket.socket:
    """A connection from an address of its own."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE_S, (address, 0))


def request(line: str, *headers: str, body: bytes = b"", close: bool = True) -> bytes:
    """A request, after which the connection ends unless it is to be kept."""
    lines = [line, *headers, *["connection: close"] * close, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def post(
    body: bytes, *headers: str, target: str = "/classify", kind: str = "image/png", version: str = "1.1", **more: Any
) -> bytes:
    """A request with a body whose length is told."""
    told = ["host: a", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return request(f"POST {target} HTTP/{version}", *told, body=body, **more)


def chunked(*chunks: bytes, trailers: bytes = b"\r\n") -> bytes:
    """A body of these chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers


def post_chunked(body: bytes, *headers: str, target: str = "/classify", **more: Any) -> bytes:
    """A request with a body that is chunked already."""
    told = ["host: a", "content-type: image/png", "transfer-encoding: chunked", *headers]
    return request(f"POST {target} HTTP/1.1", *told, body=body, **more)


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def statuses(answers: bytes) -> list[int]:
    """Of all answers in what was read."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answers)]


def ask(port: int, request: bytes, address: str = ATTACKER) -> Answer:
    """The answer to a request after which the connection ends."""
    with connect(port, address) as connection:
        connection.sendall(request)
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    return Answer(statuses(head)[0], head, body)
