"""Answers as bytes, for requests that are answered without running the application."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.schemas import RequestErrorDetail
from service.security_headers import API_HEADERS

_HEADERS = b"".join(
    b"%s: %s\r\n" % (name.lower().encode("ascii"), value.encode("ascii"))
    for name, value in {**API_HEADERS, "Content-Type": "application/json"}.items()
)


def encoded_answer(
    status: int,
    body: bytes,
    request_id: str,
    *,
    keep_alive: bool,
    server_headers: bytes = b"",
    retry_after_s: int | None = None,
) -> bytes:
    """A whole response.

    Args:
        status: HTTP status.
        body: JSON.
        request_id: of the request.
        keep_alive: whether the connection stays open after it.
        server_headers: lines that every answer of the server has.
        retry_after_s: when to come back, in whole seconds.
    """
    more = b"" if retry_after_s is None else b"retry-after: %d\r\n" % retry_after_s
    if not keep_alive:
        more += b"connection: close\r\n"
    return b"%b%b%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b" % (
        STATUS_LINE[status],
        server_headers,
        _HEADERS,
        len(body),
        request_id.encode("ascii"),
        more,
        body,
    )


_AFTER_ID = b'"}}'


@lru_cache(64)
def _before_id(type_: str, message: str) -> bytes:
    """The JSON of an error up to the id of its request, in which nothing needs escaping: all the rest is often told."""
    told = orjson.dumps({"error": RequestErrorDetail(type=type_, message=message, request_id="")})
    return told.removesuffix(_AFTER_ID)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that is told without running the application.

    Attributes:
        status: HTTP status.
        error: its type and message.
        retry_after_s: when to come back, in whole seconds.
    """

    status: int
    error: RequestErrorDetail
    retry_after_s: int | None = None

    def encoded(self, keep_alive: bool, server_headers: bytes = b"") -> bytes:
        """The whole response."""
        return encoded_answer(
            self.status,
            _before_id(self.error.type, self.error.message) + self.error.request_id.encode("ascii") + _AFTER_ID,
            self.error.request_id,
            keep_alive=keep_alive,
            server_headers=server_headers,
            retry_after_s=self.retry_after_s,
        )
