"""Headers that tell browsers to do nothing with an answer but what it is for."""

from __future__ import annotations

from functools import cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EVERYWHERE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# The documentation page has a script of its own in it, and nothing that anybody sent.
_PAGE = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Of answers that are no pages and no files.
API_HEADERS = _EVERYWHERE | {"Content-Security-Policy": _NOTHING, "Cache-Control": "no-store"}


class SecurityHeaders:
    """Middleware that adds them to every answer that has not said otherwise itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_missing(message["headers"])]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _missing(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    said = dict(headers)
    wanted = _wanted(said.get(b"content-type", b"").startswith(b"text/html"), b"etag" in said)
    return [header for header in wanted if header[0] not in said]


@cache
def _wanted(is_page: bool, is_file: bool) -> list[tuple[bytes, bytes]]:
    wanted = API_HEADERS | {"Content-Security-Policy": _PAGE if is_page else _NOTHING}
    if is_file:  # which a browser may keep if it asks whether it changed
        wanted = wanted | {"Cache-Control": "no-cache"}
    return [(name.lower().encode(), value.encode()) for name, value in wanted.items()]
