"""What is known of one request: written down on its way through the service, read by logs, metrics and traces."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifact.manifest import Manifest
from service.engine.job import Answer

if TYPE_CHECKING:  # worker processes, which log too, do without it
    from fastapi import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the classified images of a request took together; `macs_ratio` is the share of their total MACs."""

    decode_s: float
    queue_s: float
    inference_s: float
    blocks_executed: int
    blocks_total: int
    macs: int
    macs_ratio: float


@dataclass(slots=True)
class RequestRecord:
    """One request.

    Attributes:
        request_id: as its client and the log know it.
        started_at: when its head had arrived, in seconds of `time.perf_counter`.
        status: of the answer, once that has begun.
        outcome: "ok" or an error's type, once it is known.
        received_bytes: of its body, where that was wanted.
        submitted_at: when its images were queued, on the same clock.
        images: the answer to each image that was received, or the type of its error, in order.
        manifest: of the model that it is for, once that is known.
        key: name of the API key it came with, never the key itself; None where there was none.
        trace_id, span_id: of its span in hexadecimal, where it has one.
    """

    request_id: str
    started_at: float
    status: int | None = None
    outcome: str = ""
    received_bytes: int = 0
    submitted_at: float = 0.0
    images: Sequence[Answer | str] = ()
    manifest: Manifest | None = None
    key: str | None = None
    trace_id: str | None = None
    span_id: str | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since its head had arrived."""
        return time.perf_counter() - self.started_at

    @property
    def result(self) -> str:
        """What became of it by the status of its answer: "ok", its error's type, or "http_" and the status."""
        status = self.status or 500  # which is what a server makes of no answer
        return "ok" if status < 400 else self.outcome or f"http_{status}"

    def work(self) -> Work | None:
        """What its images took; None where none was classified."""
        answers = [image for image in self.images if isinstance(image, Answer)]
        if self.manifest is None or not answers:
            return None
        macs = sum(answer.macs for answer in answers)
        return Work(
            decode_s=sum(answer.decode_s for answer in answers),
            queue_s=sum(answer.queue_s for answer in answers),
            inference_s=sum(answer.inference_s for answer in answers),
            blocks_executed=sum(sum(answer.executed) for answer in answers),
            blocks_total=len(self.manifest.blocks) * len(answers),
            macs=macs,
            macs_ratio=macs / (self.manifest.total_macs * len(answers)),
        )


# For log lines that are written in the middle of a request by code that is not told of it.
current_record: ContextVar[RequestRecord | None] = ContextVar("current_record", default=None)


def record_of(request: Request) -> RequestRecord:
    """The record of a request."""
    found: RequestRecord = request.state.record
    return found


def milliseconds(seconds: float) -> float:
    """As answers tell times."""
    return round(seconds * 1_000_000) / 1000  # to whole microseconds; rounding to decimals goes by way of text
