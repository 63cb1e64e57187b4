"""Waiting for the engine's answers, until the client leaves or the deadline passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from service.engine.errors import DeadlineExceeded
from service.engine.job import Outcome
from service.errors import ClientGone

# How long nobody looks whether the client is still there, in seconds. Most answers are ready sooner, and looking costs
# as much as a tenth of a small network.
_UNWATCHED_S = 0.05

Departure = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the client has left."""


class Answers:
    """What comes of the images of one request.

    Args:
        count: of images.
    """

    def __init__(self, count: int) -> None:
        self._outcomes: list[Outcome | None] = [None] * count
        self._unanswered = count
        # Ends the wait, whatever it is that happens first. asyncio's own tools make a future and several callbacks of
        # every answer, which takes longer than all the rest of a request.
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.Task[None] | None = None

    def note(self, place: int, outcome: Outcome) -> None:
        """Note what came of one image."""
        self._outcomes[place] = outcome
        self._unanswered -= 1
        if not self._unanswered:
            self._wake()

    async def wait(self, departure: Departure, deadline_s: float) -> list[Outcome]:
        """Wait for all of them.

        Args:
            departure: of the client.
            deadline_s: longest time to wait, in seconds.

        Returns:
            The answer or the exception of each image, in order.

        Raises:
            ClientGone: the client left first.
        """
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(deadline_s, self._wake)]
        if deadline_s > _UNWATCHED_S:
            timers.append(loop.call_later(_UNWATCHED_S, self._watch_for, departure))
        try:
            await self._over
            if self._watch and self._watch.done() and self._unanswered:
                raise ClientGone
            return [DeadlineExceeded() if outcome is None else outcome for outcome in self._outcomes]
        finally:
            for timer in timers:
                timer.cancel()
            if self._watch:
                self._watch.cancel()

    def _watch_for(self, departure: Departure) -> None:
        self._watch = asyncio.get_running_loop().create_task(departure())
        self._watch.add_done_callback(lambda _: self._wake())

    def _wake(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
