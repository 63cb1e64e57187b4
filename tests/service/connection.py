"""Requests told to the application by hand, as a server would."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.runtimes import PATIENCE_S


class Connection:
    """One request whose messages are given by hand.

    Attributes:
        sent: what the application answered.
    """

    def __init__(self, app: Any, path: str, content_type: str, method: str = "POST", *headers: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", content_type.encode()), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        self._task = asyncio.ensure_future(app(scope, self._messages.get, self._send))

    def send_body(self, data: bytes, more: bool = False) -> None:
        self._messages.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    async def finished(self) -> None:
        """Wait until the application is done with the request."""
        await asyncio.wait_for(self._task, PATIENCE_S)

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
