"""Waiting for the engine's answers, and withdrawing the work when the client leaves or the deadline passes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from fastapi import Request

from service.engine.engine import Answer
from service.engine.errors import DeadlineExceeded
from service.errors import ClientGone

Outcome = Answer | Exception


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
    waiting = [asyncio.wrap_future(future) for future in futures]
    answered = asyncio.gather(*waiting, return_exceptions=True)
    departure = asyncio.ensure_future(_departure(request))
    try:
        pending: set[asyncio.Future[Any]] = {answered, departure}
        await asyncio.wait(pending, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if departure.done() and not answered.done():
            raise ClientGone
        return [_outcome(future) if future.done() else DeadlineExceeded() for future in waiting]
    finally:
        departure.cancel()
        answered.cancel()


def _outcome(future: asyncio.Future[Answer]) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error


async def _departure(request: Request) -> None:
    """Return when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
