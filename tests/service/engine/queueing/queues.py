"""Putting requests into a batcher and taking them out, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.engine.job import PendingRequest
from service.engine.queueing.batcher import Batcher

MakeBatcher = Callable[..., Batcher[str, str]]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Put(PendingRequest[str, str]):
    """A request that remembers what it was answered."""

    def __init__(self, payload: str, queued_at: float, deadline: float) -> None:
        super().__init__(payload, queued_at, deadline, self._note)
        self.outcomes: list[str | Exception] = []

    def _note(self, outcome: str | Exception) -> None:
        self.outcomes.append(outcome)


def put(batcher: Batcher[str, str], clock: Clock, *payloads: str, within: float = 10.0) -> list[Put]:
    requests = [Put(payload, clock(), clock() + within) for payload in payloads]
    for request in requests:
        batcher.put(request)
    return requests


def taken(batcher: Batcher[str, str]) -> list[str]:
    return [request.payload for request in batcher.take()]


def ahead(batcher: Batcher[str, str]) -> list[str]:
    return [request.payload for request in batcher.take_ahead()]


def until_empty(batcher: Batcher[str, str]) -> Iterator[list[str]]:
    while len(batcher):
        yield taken(batcher)
