"""Waiting for the engine's answers, and withdrawing the work when the client leaves or the deadline passes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

from fastapi import Request

from service.engine.errors import DeadlineExceeded
from service.engine.worker import Answer, Outcome
from service.errors import ClientGone
from service.outcomes import outcome_of


async def wait_for_answers(request: Request, futures: Sequence[Future[Answer]], deadline_s: float) -> list[Outcome]:
    """Wait for the answers to one request's images.

    Args:
        request: whose body has been read to its end.
        futures: of the engine. Those still pending when this returns or raises are cancelled.
        deadline_s: longest time to wait, in seconds.

    Returns:
        The answer or the exception of each image, in order.

    Raises:
        ClientGone: the client closed the connection first.
    """
    loop = asyncio.get_running_loop()
    # One future that ends the wait, whatever it is that happens first. asyncio's own tools make a future and several
    # callbacks of every answer, which takes longer than all the rest of a request.
    over: asyncio.Future[None] = loop.create_future()
    unanswered = set(futures)

    def end() -> None:
        if not over.done():
            over.set_result(None)

    def note(future: Future[Answer]) -> None:
        unanswered.discard(future)
        if not unanswered:
            end()

    for future in futures:
        # A future that is cancelled below, after the wait, calls back too; the loop may be closed by then.
        future.add_done_callback(lambda done: None if over.done() else loop.call_soon_threadsafe(note, done))
    timer = loop.call_later(deadline_s, end)
    departure = asyncio.ensure_future(_departure(request))
    departure.add_done_callback(lambda _: end())
    try:
        await over
        if departure.done() and unanswered:
            raise ClientGone
        return [outcome_of(future) if future.done() else DeadlineExceeded() for future in futures]
    finally:
        timer.cancel()
        departure.cancel()
        for future in futures:
            future.cancel()


async def _departure(request: Request) -> None:
    """Return when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
