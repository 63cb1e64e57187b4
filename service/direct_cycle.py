"""Requests that connections answer without the application."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.http_answer import encoded_answer
from service.http_protocol import GuardedProtocol


class DirectCycle(RequestResponseCycle):
    """A request that is answered without the application: what uvicorn's protocol knows of it.

    Where uvicorn tells the application's side that something has come, it calls `set`.
    """

    def __init__(self, connection: GuardedProtocol) -> None:
        # Not uvicorn's own, which makes what only an application needs.
        self.connection = connection
        self.flow = connection.flow
        self.keep_alive = connection.parser.should_keep_alive() and connection.parser.get_http_version() != "1.0"
        self.disconnected = False
        self.body = bytearray()
        self.more_body = True
        self.response_started = self.response_complete = False

    @property
    def message_event(self) -> DirectCycle:  # type: ignore[override]
        """What uvicorn calls `set` of."""
        return self

    def set(self) -> None:
        """Something has come."""

    def answer(self, status: int, body: bytes, request_id: str, retry_after_s: int | None = None) -> None:
        """Give the answer, unless the client is gone."""
        connection = self.connection
        if self.disconnected:
            self.response_complete = True
            return
        encoded = encoded_answer(
            status,
            body,
            request_id,
            keep_alive=self.keep_alive,
            server_headers=connection.server_headers,
            retry_after_s=retry_after_s,
        )
        connection.conclude(self, encoded)
