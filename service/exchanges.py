"""Which requests are answered without the application."""

from __future__ import annotations

import time

from fastapi.exceptions import RequestValidationError

from service.context import Context
from service.deadlines import HEADER, deadline_within
from service.direct_route import parameters_in
from service.errors import ApiError
from service.exchange import Exchange
from service.http_protocol import GuardedProtocol
from service.request_ids import request_id
from service.request_record import RequestRecord
from service.uploads import is_form, most_bytes

_TIMEOUT = HEADER.lower().encode("ascii")
# Who sends one of these wants something of the connection, or of the body, that the application's way knows how to do.
_UNUSUAL = frozenset({b"expect", b"transfer-encoding", b"content-encoding"})


class Exchanges:
    """Begins them.

    Args:
        served: the running service.
    """

    def __init__(self, served: Context) -> None:
        self._served = served
        # Pages of other origins are told so by the application.
        self._unusual = _UNUSUAL | {b"origin"} if served.settings.cors_origins else _UNUSUAL

    def begin(self, connection: GuardedProtocol, query: bytes) -> Exchange | None:
        """Take a `POST /classify` of which the head is there; None where the application has to."""
        served = self._served
        if not served.direct or connection.flow.write_paused or b"#" in query:
            return None
        headers = dict(reversed(connection.headers))  # of several of a name the first counts
        if not self._unusual.isdisjoint(headers):
            return None
        arrived = time.perf_counter()
        asked, content_type = headers.get(_TIMEOUT), headers.get(b"content-type", b"").decode("latin-1")
        try:
            parameters = parameters_in(query)
            longest_ms = served.settings.deadline_ms
            deadline = deadline_within(None if asked is None else asked.decode("latin-1"), arrived, longest_ms)
            form = is_form(content_type)
        except (ApiError, RequestValidationError):
            return None  # and tells why
        limit = min(most_bytes(form, served.settings.max_bytes), served.memory.capacity)
        if not 0 < int(headers.get(b"content-length", 0)) <= limit:
            return None
        record = RequestRecord(request_id(connection.headers), arrived)
        form_type = content_type if form else None
        return Exchange(connection, served, record, deadline, parameters, form_type)
