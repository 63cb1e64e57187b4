"""One image on its way through the engine."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

PayloadT = TypeVar("PayloadT")
AnswerT = TypeVar("AnswerT")


@dataclass(eq=False)
class PendingRequest(Generic[PayloadT, AnswerT]):
    """Work that waits for an answer.

    Attributes:
        payload: what to work on.
        queued_at: when it was submitted, in seconds of the engine's clock.
        deadline: when its answer is worthless, on the same clock.
        future: where the answer goes; cancelling it withdraws the request.
    """

    payload: PayloadT
    queued_at: float
    deadline: float
    future: Future[AnswerT] = field(default_factory=Future)
