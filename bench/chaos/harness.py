"""Where clients and the service meet: one run of the service, and what went wrong in it."""

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
class Harness:
    """What the agents share.

    Attributes:
        port: of the service.
        gallery: of the model that is served.
        deadline_s, max_bytes, max_pixels, max_images, max_batch: limits of the service.
        ledger: of what clients saw.
        problems: what must not have happened, with how often.
        stopping: whether the service may refuse connections, and close those it has not read from.
        killed: whether it may even break off in the middle of an answer.
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
    killed: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def problem(self, problem: str) -> None:
        """Note what must not have happened."""
        self.problems[problem] += 1

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
            self.problem(f"hang: {what}")
        except NoAnswer as error:
            if not self.stopping or (error.begun and not self.killed):
                self.problem(f"unanswered: {what}: {error}")
        except OSError as error:
            if not self.stopping:
                self.problem(f"unanswered: {what}: {error.strerror or error}")
        return None

    async def end(self, running: asyncio.Future[list[None]]) -> None:
        """Let agents come to an end."""
        self.over.set()
        try:
            await asyncio.wait_for(running, 3 * HANG_S)
        except TimeoutError:
            self.problem("hang: agents did not end")

    async def expect_ready(self, ready: bool = True) -> None:
        """Wait until the service says that it is ready, or that it is not."""
        give_up = asyncio.get_running_loop().time() + HANG_S
        while (answer := await self.ask("/readyz")) is not None and (answer.status == 200) is not ready:
            if asyncio.get_running_loop().time() > give_up:
                self.problem("not ready" if ready else "ready without a worker")
                return
            await asyncio.sleep(0.1)

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
