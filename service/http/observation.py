"""Around everything: a request gets its id and record here, is answered, counted, measured, logged and traced."""

from __future__ import annotations

import time
from http import HTTPMethod
from typing import TYPE_CHECKING

from h11 import LocalProtocolError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import OF_HTTP, answer
from service.http.error_forms import error_writer
from service.http.forwarded_prefix import path_below
from service.http.request_ids import HEADER, request_id
from service.http.route_names import RouteNames
from service.observability.access_log import AccessLog
from service.observability.metrics import Metrics
from service.observability.record import RequestRecord, current_record

if TYPE_CHECKING:  # its packages need not be installed
    from service.observability.tracing import Tracing

# Others can be of any length, and do not stand in logs.
_METHODS = frozenset(HTTPMethod)


class Observation:
    """Sees every request from its head to the end of its answer.

    Args:
        app: what answers.
        routes: there are.
        metrics: count and measure every request.
        access_log: has a line for every request, if it is given.
        tracing: has a span for every request, if it is given.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: RouteNames,
        metrics: Metrics,
        access_log: AccessLog | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._routes = routes
        self._metrics = metrics
        self._access_log = access_log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and see what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(request_id(scope["headers"]), time.perf_counter())
        writer = error_writer(path_below(scope))
        scope["state"] = {**scope.get("state", {}), "record": record, "write_error": writer}
        current_record.set(record)  # until the task ends, which has no other request
        span = self._tracing.begin(scope, record) if self._tracing else None
        outcome = "internal_error"
        try:
            await answer(self._app, scope, receive, _identified(send, record))
            outcome = record.result
        except LocalProtocolError:  # what came was no HTTP in the end, and uvicorn has said so
            record.status, outcome = 400, OF_HTTP[400]
            raise
        finally:
            record.outcome = outcome
            route = self._routes.name(scope)
            # Unknown paths share one name, so that a scanner cannot fill the metrics.
            name = route or "unmatched"
            ended_at = time.perf_counter()
            self._metrics.count_request(name, outcome, ended_at - record.started_at)
            if self._access_log:
                self._access_log.write(
                    scope["method"] if scope["method"] in _METHODS else "_OTHER",
                    name,
                    record,
                    ended_at - record.started_at,
                )
            if span:
                span.end(route, record, ended_at)


def _identified(send: Send, record: RequestRecord) -> Send:
    """A `send` that gives the answer the request's id, and notes its status."""

    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (HEADER, record.request_id.encode("ascii"))]
        await send(message)

    return send_with_id
