"""Waiting for the engine's answers, and withdrawing the work when the client leaves or the deadline passes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import Request

from service.engine.errors import DeadlineExceeded
from service.engine.request import PendingRequest
from service.engine.worker import Answer, Outcome
from service.errors import ClientGone


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

    def note(self, place: int, outcome: Outcome) -> None:
        """Note what came of one image."""
        self._outcomes[place] = outcome
        self._unanswered -= 1
        if not self._unanswered:
            self._wake()

    async def wait(
        self, request: Request, pending: Sequence[PendingRequest[bytes, Answer]], deadline_s: float
    ) -> list[Outcome]:
        """Wait for all of them.

        Args:
            request: whose body has been read to its end.
            pending: the images that the engine has. Those not answered when this returns or raises are withdrawn.
            deadline_s: longest time to wait, in seconds.

        Returns:
            The answer or the exception of each image, in order.

        Raises:
            ClientGone: the client closed the connection first.
        """
        timer = asyncio.get_running_loop().call_later(deadline_s, self._wake)
        departure = asyncio.ensure_future(_departure(request))
        departure.add_done_callback(lambda _: self._wake())
        try:
            await self._over
            if departure.done() and self._unanswered:
                raise ClientGone
            return [DeadlineExceeded() if outcome is None else outcome for outcome in self._outcomes]
        finally:
            timer.cancel()
            departure.cancel()
            for image in pending:
                image.withdraw()

    def _wake(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


async def _departure(request: Request) -> None:
    """Return when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
