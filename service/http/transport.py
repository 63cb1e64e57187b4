"""The head and the body of a request with images, as ASGI has them."""

from __future__ import annotations

from starlette.types import Receive, Scope

from service.classify.budgets import HEADER as BUDGET_HEADER
from service.classify.budgets import budget_in
from service.classify.deadlines import HEADER as TIMEOUT_HEADER
from service.classify.deadlines import Deadline, deadline_within
from service.errors import ApiError, ClientGone


class Head:
    """The headers of a request; of several of a name the first counts.

    Args:
        scope: of ASGI.
    """

    def __init__(self, scope: Scope) -> None:
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))

    def text(self, name: str) -> str | None:
        """The value of a header."""
        value = self._headers.get(name.lower().encode("ascii"))
        return None if value is None else value.decode("latin-1")

    @property
    def declared_bytes(self) -> int:
        """Of the body, where its length is known before it comes."""
        return int(self._headers.get(b"content-length", 0))

    def deadline(self, arrived: float, longest_ms: float) -> Deadline:
        """When nobody waits any more; see `deadline_within`."""
        return deadline_within(self.text(TIMEOUT_HEADER), arrived, longest_ms)

    @property
    def budget(self) -> float | None:
        """What the header asks for.

        Raises:
            ApiError: it is no budget.
        """
        said = self.text(BUDGET_HEADER)
        return None if said is None else budget_in(said, BUDGET_HEADER)

    def require_no_encoding(self) -> None:
        """Return if the body comes as it is.

        Raises:
            ApiError: it is compressed.
        """
        encoding = self.text("Content-Encoding")
        if encoding and encoding.lower() != "identity":
            said = f"bodies are taken without encoding, not with Content-Encoding: {encoding[:40]}"
            raise ApiError(415, "unsupported_encoding", said, {"Accept-Encoding": "identity"})


class HttpTransport:
    """The body of an HTTP request, and word of its client.

    Args:
        declared_bytes: of the body; 0 where that is not known.
        receive: of ASGI.
    """

    def __init__(self, declared_bytes: int, receive: Receive) -> None:
        self.declared_bytes = declared_bytes
        self.has_more = True
        self._receive = receive

    async def receive(self) -> bytes:
        """The next bytes of the body."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.has_more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    async def departure(self) -> None:
        """Return when the client has closed the connection."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
