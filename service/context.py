"""What every route needs, made once when the service starts."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from artifact.manifest import Manifest
from service.access_log import AccessLog
from service.answer_writer import AnswerWriter
from service.engine.engine import Engine
from service.memory import BodyMemory
from service.metrics import Metrics
from service.request_record import RequestRecord, named_in_log
from service.settings import Settings


@dataclass(frozen=True)
class Context:
    """The running service: its settings, its engine (which takes image files), what it tells, and what it holds.

    Attributes:
        direct: whether an image may be answered without the application. Not where something in it looks at every
            request: API keys, or tracing.
    """

    settings: Settings
    engine: Engine[bytes]
    metrics: Metrics
    access_log: AccessLog | None
    memory: BodyMemory
    writer: AnswerWriter
    direct: bool = True

    @property
    def manifest(self) -> Manifest:
        """Of the model that is served."""
        return self.engine.pool.manifest

    def note_end(self, method: str, route: str, record: RequestRecord, total_s: float) -> None:
        """Do for an answer without the application what `Observation` does for the application's."""
        self.metrics.count_request(route, record.outcome, total_s)
        if self.access_log:
            with named_in_log(record):
                self.access_log.write(method, route, record, total_s)


def context(request: Request) -> Context:
    """The context of the app a request came to."""
    found: Context = request.app.state.context
    return found
