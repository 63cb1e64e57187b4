"""Where clients and the service meet: one life of the service, and what went wrong in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from bench.chaos.connection import HOST, Answer, Connection, NoAnswer
from bench.chaos.ledger import Counted, Ledger
from bench.chaos.pictures import Gallery

T = TypeVar("T")

# Far longer than the service may take for anything; who waits longer was forgotten.
HANG_S = 20.0


@dataclass
class Arena:
    """What the agents share.

    Attributes:
        port: of the service.
        gallery: of the model that is served.
        deadline_s, max_bytes, max_pixels, max_images, max_batch: limits of the service.
        ledger: of what clients saw.
        problems: what must not have happened, with how often.
        stopping: whether the service may refuse connections, and close those it has not read from.
        over: set when agents should end.
    """

    port: int
    gallery: Gallery
    deadline_s: float
    max_bytes: int
    max_pixels: int
    max_images: int
    max_batch: int
    ledger: Ledger = field(default_factory=Ledger)
    problems: Counter[str] = field(default_factory=Counter)
    stopping: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def pause(self, seconds: float) -> None:
        """Wait, or until all is over."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return

    async def patiently(self, work: Awaitable[T], what: str) -> T | None:
        """Wait for what must come, noting a problem where it does not; None then."""
        try:
            return await asyncio.wait_for(work, HANG_S)
        except TimeoutError:
            self.problems[f"hang: {what}"] += 1
        except NoAnswer as error:
            if not self.stopping or error.begun:
                self.problems[f"unanswered: {what}: {error}"] += 1
        except OSError as error:
            if not self.stopping:
                self.problems[f"unanswered: {what}: {error.strerror or error}"] += 1
        return None

    async def ask(self, path: str) -> Answer | None:
        """Get one of the routes for operators, on a connection of its own."""
        connection = await self.patiently(Connection.open(self.port), path)
        if connection is None:
            return None
        connection.send(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = await self.patiently(connection.answer(), path)
        connection.leave()
        if answer is not None:
            # /readyz says 503 without being an error that has a type.
            self.ledger.requests[path, answer.outcome] += 1
        return answer

    async def counted(self) -> Counted | None:
        """The counters, without the request that asks for them."""
        before = Counter(self.ledger.requests)
        answer = await self.ask("/metrics")
        if answer is None:
            return None
        counted = Counted.of(answer.body.decode())
        asked = self.ledger.requests - before
        for route, outcome in asked:  # that it is answered is counted after it has told what was
            counted.requests[route, outcome] += 1
            counted.durations[route] += 1
        return counted
