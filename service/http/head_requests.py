"""HEAD, which the standard wants wherever there is a GET; FastAPI's routes take only what they were declared with."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """Middleware that has a HEAD answered as a GET.

    The body is left out by the server, which knows of the HEAD, as all that is outside of this does: what comes next
    sees a copy of the scope.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)
