"""One front end's side of the talk with the process above: what it is asked, and what it asks."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from service import errors
from service.errors import ApiError
from service.frontends.shared import Shared
from service.frontends.sums import told_by
from service.frontends.talk import NoAnswer, Talk
from service.repository.whole import Change, Part

METRICS_S = 5.0
"""Longest wait for the metrics of all: longer than the process above waits for one of them, in seconds."""
CHANGE_S = 600.0
"""Longest wait for a model to be loaded or unloaded in all, one after the other, in seconds."""


class Member:
    """See `Whole`. It lives on the server's event loop.

    Args:
        number: of this front end.
        count: of all front ends.
        connection: to the process above.
        models: versions to serve at first; None for all there are.
    """

    def __init__(
        self, number: int, count: int, connection: socket.socket, models: Sequence[tuple[str, str]] | None
    ) -> None:
        self.number = number
        self.count = count
        self.name = f"frontend-{number}"
        self.models = models
        self.problem: str | None = "front ends are starting"
        self._connection = connection
        self._talk = Talk(self._answered)
        self._part: Part | None = None
        # Else each of many who ask here would have the process above write them all down.
        self._metrics = Shared(self._ask_metrics)

    @asynccontextmanager
    async def running(self, part: Part) -> AsyncIterator[None]:
        """See `Whole`; in the end it says what it has counted."""
        self._part = part
        await self._talk.open(self._connection)
        try:
            yield
        finally:
            with suppress(NoAnswer):
                await self._talk.ask("ending", told_by(part.registry))
            self._talk.close()

    def tell_listening(self) -> None:
        """Say that connections are taken."""
        self._talk.tell("listening")

    async def metrics(self) -> bytes:
        """See `Whole`."""
        return await self._metrics()

    async def _ask_metrics(self) -> bytes:
        try:
            told: str = await self._talk.ask("metrics", within_s=METRICS_S)
        except NoAnswer as error:
            raise ApiError(503, "front_end_missing", f"the process above the front ends {error}") from error
        return told.encode()

    async def change(self, change: Change, name: str, version: str | None) -> None:
        """See `Whole`."""
        try:
            refusal = await self._talk.ask("change", [change, name, version], CHANGE_S)
        except NoAnswer as error:
            raise ApiError(503, "front_end_missing", f"the process above the front ends {error}") from error
        if refusal:
            raise errors.ApiError(*refusal)

    async def _answered(self, what: str, about: Any) -> Any:
        part = self._part
        assert part is not None  # before that there is no talk
        match what:
            case "state":
                self.problem = about
                return {"problem": part.own_problem, "leaving": part.leaving, "models": part.served}
            case "counts":
                return told_by(part.registry)
            case "change":
                return await _changed(part, *about)
            case _:
                raise ValueError(f"nobody asks {what}")


async def _changed(part: Part, change: Change, name: str, version: str | None) -> dict[str, Any]:
    """What is served then, and why a model could not be loaded or unloaded, as arguments of `ApiError`."""
    refusal = None
    try:
        await (part.load_here if change == "load" else part.unload_here)(name, version)
    except ApiError as error:
        refusal = [error.status, error.type, str(error), dict(error.headers or {})]
    return {"refusal": refusal, "models": part.served}
