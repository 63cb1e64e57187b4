"""Putting requests into a batcher and taking them out, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread

from service.engine.batcher import Batcher
from service.engine.request import PendingRequest
from tests.runtimes import PATIENCE_S

Request = PendingRequest[str, str]
MakeBatcher = Callable[..., Batcher[str, str]]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Taking:
    """A `take` on a thread of its own."""

    def __init__(self, batcher: Batcher[str, str]) -> None:
        self.batches: list[list[str] | None] = []
        self._thread = Thread(target=lambda: self.batches.append(taken(batcher)), daemon=True)
        self._thread.start()

    @property
    def still_waits(self) -> bool:
        # Long enough for a take that need not wait to come back, so a wrong return is seen; never too short to pass.
        self._thread.join(0.05)
        return self._thread.is_alive()

    def result(self) -> list[str] | None:
        self._thread.join(PATIENCE_S)
        assert self.batches, "take did not return"
        return self.batches[0]


def put(batcher: Batcher[str, str], clock: Clock, *payloads: str, within: float = 10.0) -> list[Request]:
    requests = [PendingRequest[str, str](payload, clock(), clock() + within) for payload in payloads]
    for request in requests:
        batcher.put(request)
    return requests


def taken(batcher: Batcher[str, str]) -> list[str] | None:
    batch = batcher.take()
    return None if batch is None else [request.payload for request in batch]


def ahead(batcher: Batcher[str, str]) -> list[str]:
    return [request.payload for request in batcher.take_ahead()]


def until_empty(batcher: Batcher[str, str]) -> Iterator[list[str]]:
    while len(batcher):
        batch = taken(batcher)
        assert batch is not None
        yield batch
