"""Which requests are refused by their head alone, and what connections have to obey."""

from __future__ import annotations

from starlette.types import Scope

from service.context import Context
from service.direct_route import DirectRoute
from service.engine.errors import Overloaded
from service.errors import classify_error, retry_after_s
from service.http_protocol import Guard, Refusal
from service.routes import images

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
        if scope["method"] != "POST" or scope["path"] not in self._paths:
            return None
        try:
            self._served.engine.require_room()
        except Overloaded as error:
            status, detail = classify_error(error)
            self._served.metrics.count_failed_image(detail.type)
            self._served.metrics.count_request(scope["path"], detail.type, 0.0)
            return Refusal(status, detail, retry_after_s(error))
        return None

    def _note(self, refusal: Refusal) -> None:
        self._served.metrics.count_request("unmatched", refusal.error.type, 0.0)
