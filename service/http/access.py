"""Who may ask for what: with API keys, everything needs one that is not open to all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.accounts import Account, LimitReached
from service.access.ledger import Ledger
from service.errors import ApiError, respond
from service.http.forwarded_prefix import path_below
from service.observability.record import RequestRecord

# Health, so that no orchestrator needs a secret to ask for it; and pages, which hold none: what they call needs a key.
_OF_HEALTH = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
_OPEN_PATHS = _OF_HEALTH | {"/", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
_OPEN_FOLDERS = ("/static-offline-docs/", "/ui/")


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS)


class Access:
    """Middleware that refuses requests without a key, and leaves in `scope["state"]["account"]` whose key it was.

    Args:
        app: what comes next.
        ledger: of the keys there are.
        is_open: whether a path needs no key.
        admin_path: of the Unix socket that asks for no key, if there is one.
    """

    def __init__(
        self,
        app: ASGIApp,
        ledger: Ledger,
        is_open: Callable[[str], bool] = is_open,
        admin_path: Path | None = None,
    ) -> None:
        self._app = app
        self._ledger = ledger
        self._is_open = is_open
        self._admin_path = admin_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it."""
        path = path_below(scope) if scope["type"] == "http" else "/"
        if self._is_open(path) or came_by_path(scope, self._admin_path):
            await self._app(scope, receive, send)
            return
        try:
            account = self._account(scope)
        except ApiError as error:
            await (await respond(Request(scope), error))(scope, receive, send)
            return
        state = scope["state"]
        state["account"] = account
        record: RequestRecord = state["record"]
        record.key = account.key.name
        try:
            with account:
                await self._app(scope, receive, send)
        except LimitReached as error:
            await (await respond(Request(scope), error))(scope, receive, send)
        finally:
            self._ledger.count_request(account, record.result)

    def _account(self, scope: Scope) -> Account:
        presented = presented_key(scope["headers"])
        if presented is None:
            raise ApiError(
                401, "unauthorized", "this needs an API key, as Authorization: Bearer KEY or as X-API-Key: KEY"
            )
        account = self._ledger.find(presented)
        if account is None:
            raise ApiError(401, "unauthorized", "there is no such API key")
        return account


def came_by_path(scope: Scope, path: Path | None) -> bool:
    """Whether a request came by the Unix socket at a path, which only the service's own user can open."""
    return scope["type"] == "http" and path is not None and scope["server"] == (str(path), None)


def require_admin(scope: Scope, path: Path | None) -> None:
    """Return if a request may load and unload models; `path` is that of the Unix socket for this.

    Raises:
        ApiError: it may not.
    """
    account: Account | None = scope["state"].get("account")
    if not (came_by_path(scope, path) or (account is not None and account.key.admin)):
        raise ApiError(403, "forbidden", "this needs an API key with admin = true, or the socket of --admin-socket")


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key in a request's headers: the bearer's token, else that of the other header; of each the first counts."""
    bearer = other = None
    for name, value in headers:
        if name == b"authorization" and bearer is None:
            scheme, _, token = value.partition(b" ")
            bearer = token.strip() if scheme.lower() == b"bearer" else b""
        elif name == b"x-api-key" and other is None:
            other = value
    return bearer or other or None
