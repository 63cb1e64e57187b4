"""A connection to the service on which a request can be sent whole, in pieces, or not as HTTP at all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import httptools
import orjson

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """One whole answer.

    Attributes:
        status: of HTTP.
        headers: their names in lower case.
        body: as it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def json(self) -> Any:
        """The body, None where it is no JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def outcome(self) -> str:
        """As the service counts it: "ok", or the type of the error."""
        if self.status < 400:
            return "ok"
        try:
            return str(self.json["error"]["type"])
        except (TypeError, LookupError):
            return f"http_{self.status}"


class NoAnswer(Exception):  # noqa: N818 (a state, told as one)
    """The connection ended before the answer did.

    Attributes:
        begun: whether a part of the answer had come.
    """

    def __init__(self, begun: bool) -> None:
        super().__init__("the connection was closed " + ("within the answer" if begun else "without an answer"))
        self.begun = begun


class Connection(asyncio.Protocol):
    """Answers are waited for one at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._begun = False
        self._in_body = False
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self.closed = False

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect.

        Raises:
            OSError: nobody listens.
        """
        _, connection = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return connection

    def send(self, data: bytes) -> None:
        """Write, without waiting until it has been read."""
        assert self._transport is not None
        if not self.closed:
            self._transport.write(data)

    async def answer(self) -> Answer:
        """Wait for the answer.

        Raises:
            NoAnswer: the connection ended before.
        """
        return await self._answer

    async def closure(self) -> Answer | None:
        """Wait until the other side closes the connection; None where it gives no answer before."""
        with suppress(NoAnswer):
            return await self._answer
        return None

    def stop_reading(self) -> None:
        """Leave what comes from now on to the system."""
        assert self._transport is not None
        if not self.closed:
            self._transport.pause_reading()

    def leave(self) -> None:
        """Close once what was sent is on its way; what arrived is not read."""
        if self._transport is not None:
            self._transport.close()
        self._answer.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  asyncio passes it
        self.closed = True
        if self._in_body and self._headers.keys().isdisjoint(("content-length", "transfer-encoding")):
            self.on_message_complete()  # RFC 9112, section 6.3: such an answer ends with its connection
        self._fail()

    def _fail(self) -> None:
        if not self._answer.done():
            self._answer.set_exception(NoAnswer(self._begun))
            self._answer.exception()  # whoever has stopped waiting need not hear of it
        if self._transport is not None:
            self._transport.close()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        answer = Answer(self._parser.get_status_code(), self._headers, b"".join(self._chunks))
        if self._answer.done():  # an answer that nobody asked for
            if not self._answer.cancelled():
                self._fail()
            return
        self._headers, self._chunks, self._begun, self._in_body = {}, [], False, False
        self._answer.set_result(answer)

    def expect(self) -> None:
        """Be ready for the answer to another request."""
        self._answer = asyncio.get_running_loop().create_future()
        if self.closed:
            self._fail()


def head(path: str, length: int | None, content_type: str = "image/jpeg", **headers: object) -> bytes:
    """The head of a POST, by default with the length of its body; underscores in names of headers become dashes."""
    fields = {"Host": "chaos", "Content-Type": content_type}
    if length is not None:
        fields["Content-Length"] = str(length)
    fields |= {name.replace("_", "-"): str(value) for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def form(field: str, files: list[bytes]) -> tuple[str, bytes]:
    """The content type and the body of a form with these files, all in fields of one name."""
    opening = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="image"\r\n\r\n'.encode()
    return "multipart/form-data; boundary=edge", b"".join(
        [part for file in files for part in (opening, file, b"\r\n")] + [b"--edge--\r\n"]
    )
