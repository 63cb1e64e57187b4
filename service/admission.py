"""Which requests are refused by their head alone, and what connections have to obey."""

from __future__ import annotations

import time

from service.context import Context
from service.direct_cycle import DirectCycle
from service.direct_route import DirectRoute
from service.engine.errors import EngineStopped, Overloaded
from service.errors import classify_error, retry_after_s
from service.exchange import ROUTE
from service.exchanges import Exchanges
from service.http_answer import Refusal
from service.http_protocol import Guard, GuardedProtocol, Headers
from service.request_ids import request_id
from service.request_record import RequestRecord
from service.routes import images
from service.schemas import RequestErrorDetail

# The application itself answers an upload that is late; this is for those it has not seen or does not wait for.
_SLACK_S = 1.0


class Admission:
    """Counts what it refuses.

    Args:
        served: the running service.
    """

    def __init__(self, served: Context) -> None:
        self._served = served
        self._paths = frozenset(route.path for route in images.routes if isinstance(route, DirectRoute))
        self._routes = {path.encode("ascii"): path for path in self._paths}
        self._exchanges = Exchanges(served)
        self._overloaded = classify_error(Overloaded(0.0))  # the same for all

    @property
    def guard(self) -> Guard:
        """For the HTTP protocol."""
        settings = self._served.settings
        receive_s = settings.deadline_ms / 1000 + _SLACK_S
        return Guard(receive_s, settings.max_connections, self._refusal, self._note, self._begin)

    def _begin(self, connection: GuardedProtocol, method: bytes, path: bytes, query: bytes) -> DirectCycle | None:
        """Refuse a request with images, or begin to answer it, where neither needs the application."""
        route = self._routes.get(path)
        if route is None or method != b"POST":
            return None
        if refusal := self._refusal("POST", route, connection.headers):
            cycle = DirectCycle(connection)
            connection.conclude(cycle, refusal.encoded(cycle.keep_alive, connection.server_headers))
            return cycle
        return self._exchanges.begin(connection, query) if route == ROUTE else None

    def _refusal(self, method: str, route: str, headers: Headers) -> Refusal | None:
        """Why a request with images cannot be taken now."""
        if method != "POST" or route not in self._paths:
            return None
        if self._served.settings.cors_origins and any(name == b"origin" for name, _ in headers):
            return None  # the application says the same, with the headers that let a page read it
        try:
            self._served.engine.require_room()
        except Overloaded as error:
            status, detail = self._overloaded
            told = RequestErrorDetail(type=detail.type, message=detail.message, request_id=request_id(headers))
            refusal = Refusal(status, told, retry_after_s(error))
            self._served.metrics.count_failed_image(detail.type)
            self._observe("POST", route, refusal)
            return refusal
        except EngineStopped:
            return None  # which the application tells
        return None

    def _note(self, refusal: Refusal) -> None:
        self._observe("?", "unmatched", refusal)

    def _observe(self, method: str, route: str, refusal: Refusal) -> None:
        record = RequestRecord(refusal.error.request_id, time.perf_counter(), refusal.status, refusal.error.type)
        self._served.note_end(method, route, record, 0.0)
