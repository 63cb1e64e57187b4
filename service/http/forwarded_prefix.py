"""The path below which a proxy shows the service."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_HEADER = b"x-forwarded-prefix"
# Nothing in it can end an attribute or a string of a page, and nothing is decoded or resolved.
_PREFIX = re.compile(rb"(/[0-9A-Za-z_~-][0-9A-Za-z._~-]{0,63}){1,8}")


class ForwardedPrefix:
    """Middleware that takes it from `X-Forwarded-Prefix`, for pages to name paths as browsers have to ask for them.

    Whoever sends the header gets other links in his own answer, and nothing else: what a path opens is decided by what
    comes after the prefix.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == _HEADER and _PREFIX.fullmatch(value.rstrip(b"/")):
                    prefix = value.rstrip(b"/").decode("ascii")
                    scope = {**scope, "root_path": prefix, "path": prefix + path_below(scope)}
                    break
        await self._app(scope, receive, send)


def path_below(scope: Scope) -> str:
    """The path of a request as the service's own routes have it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
