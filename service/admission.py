"""Which requests are refused by their head alone, and what connections have to obey."""

from __future__ import annotations

import time

from starlette.types import Scope

from service.context import Context
from service.direct_route import DirectRoute
from service.engine.errors import Overloaded
from service.errors import classify_error, retry_after_s
from service.http_protocol import Guard, Refusal
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

    @property
    def guard(self) -> Guard:
        """For the HTTP protocol."""
        settings = self._served.settings
        receive_s = settings.deadline_ms / 1000 + _SLACK_S
        return Guard(receive_s, settings.max_connections, self._refusal, self._note)

    def _refusal(self, scope: Scope) -> Refusal | None:
        """Why a request with images cannot be taken now."""
        route = scope["path"]
        if scope["method"] != "POST" or route not in self._paths:
            return None
        try:
            self._served.engine.require_room()
        except Overloaded as error:
            status, detail = classify_error(error)
            told = RequestErrorDetail(type=detail.type, message=detail.message, request_id=request_id(scope["headers"]))
            refusal = Refusal(status, told, retry_after_s(error))
            self._served.metrics.count_failed_image(detail.type)
            self._observe("POST", route, refusal)
            return refusal
        return None

    def _note(self, refusal: Refusal) -> None:
        self._observe("?", "unmatched", refusal)

    def _observe(self, method: str, route: str, refusal: Refusal) -> None:
        """Do for an answer without the application what `Observation` does for the application's."""
        outcome = refusal.error.type
        self._served.metrics.count_request(route, outcome, 0.0)
        if self._served.access_log:
            record = RequestRecord(refusal.error.request_id, time.perf_counter(), refusal.status, outcome)
            self._served.access_log.write(method, route, record, 0.0)
