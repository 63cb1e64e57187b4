"""Clients that send sound images: steadily, in bursts, in haste, and such as leave before they are answered."""

from __future__ import annotations

import asyncio
from random import Random
from time import monotonic
from typing import Any

from bench.chaos.connection import Answer, Connection, form, head
from bench.chaos.harness import Harness
from bench.chaos.pictures import Picture

_QUERY = "?top_k=1000"
# What may become of a sound image in a storm, besides the right answer.
_EXCUSES = {"overloaded", "worker_lost", "stopping"}
_SLACK_S = 0.05  # by which clocks and timers may be early


class Clients:
    """All clients of one scenario.

    Args:
        harness: where they meet the service.
        random: of all their choices.
    """

    def __init__(self, harness: Harness, random: Random) -> None:
        self._harness = harness
        self._random = random

    async def steady(self) -> None:
        """Send one request after another on a connection that is kept open."""
        connection: Connection | None = None
        while not self._harness.over.is_set():
            if connection is None or connection.closed:
                connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
                if connection is None:
                    await self._harness.pause(0.05)
                    continue
            if not await self._request(connection):
                connection.leave()
                connection = None
        if connection is not None:
            connection.leave()

    async def bursts(self, clients: int, longest_s: float) -> None:
        """Now and then as many clients at once as the service cannot serve."""
        while not self._harness.over.is_set():
            await self._harness.pause(self._random.uniform(0.5, 4.0))
            give_up = monotonic() + self._random.uniform(0.2, longest_s)
            await asyncio.gather(*(self._burst(give_up) for _ in range(clients)))

    async def hasty(self) -> None:
        """Ask for an answer within a time in which it may or may not come."""
        while not self._harness.over.is_set():
            timeout_ms = self._random.choice([0.01, 1.0, 3.0, 10.0, 100.0])
            connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
            if connection is not None:
                await self._request(connection, timeout_ms)
                connection.leave()
            await self._harness.pause(self._random.uniform(0.0, 0.1))

    async def leavers(self) -> None:
        """Leave while uploading, waiting or reading."""
        while not self._harness.over.is_set():
            await self._leave()
            await self._harness.pause(self._random.expovariate(20.0))

    async def once(self, count: int = 1) -> list[bool]:
        """So many requests at once on as many connections; whether each was given the right answer."""

        async def ask() -> bool:
            connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
            if connection is None:
                return False
            picture = self._random.choice(self._harness.gallery.pictures)
            connection.send(head(f"/classify{_QUERY}", len(picture.data)) + picture.data)
            answer = await self._harness.patiently(connection.answer(), "a single image")
            connection.leave()
            if answer is None:
                return False
            self._harness.ledger.note("/classify", answer)
            return self._is_right(picture, answer.outcome, answer.json)

        return await asyncio.gather(*(ask() for _ in range(count)))

    async def _burst(self, give_up: float) -> None:
        connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
        while connection is not None and monotonic() < give_up and await self._request(connection):
            pass
        if connection is not None:
            connection.leave()

    async def _request(self, connection: Connection, timeout_ms: float | None = None) -> bool:
        """One request of a random kind, its answer checked; whether the connection can be used again."""
        pictures = self._random.choices(self._harness.gallery.pictures, k=self._random.randint(1, 4))
        kind = self._random.choices(["raw", "form", "batch"], [6, 2, 1])[0]
        headers: dict[str, Any] = {} if timeout_ms is None else {"X_Request_Timeout_Ms": timeout_ms}
        if kind == "batch":
            route = "/classify/batch"
            content_type, body = form("files", [picture.data for picture in pictures])
        else:
            route, pictures = "/classify", pictures[:1]
            content_type, body = ("image/jpeg", pictures[0].data) if kind == "raw" else form("file", [pictures[0].data])
        connection.expect()
        sent = monotonic()
        connection.send(head(route + _QUERY, len(body), content_type, **headers) + body)
        answer = await self._harness.patiently(connection.answer(), f"an image, {kind}")
        if answer is None:
            return False
        self._harness.ledger.note(route, answer, len(pictures))
        self._check(answer, pictures, monotonic() - sent, timeout_ms)
        return not connection.closed

    def _check(self, answer: Answer, pictures: list[Picture], taken_s: float, timeout_ms: float | None) -> None:
        """Note what is wrong with an answer."""
        deadline_s = (
            self._harness.deadline_s if timeout_ms is None else min(self._harness.deadline_s, timeout_ms / 1000)
        )
        outcomes = _outcomes(answer, len(pictures))
        if len(outcomes) != len(pictures):
            self._harness.problem(f"{len(outcomes)} answers for {len(pictures)} images")
            return
        for picture, (outcome, told) in zip(pictures, outcomes, strict=True):
            if outcome in ("deadline_exceeded", "upload_timeout"):
                if taken_s < deadline_s - _SLACK_S:
                    self._harness.problem(f"{outcome} before its time")
                if outcome == "upload_timeout" and timeout_ms is None:
                    self._harness.problem("upload_timeout of an image that was sent at once")
            else:
                self._is_right(picture, outcome, told)
        if answer.status == 429 and not answer.headers.get("retry-after", "").isdecimal():
            self._harness.problem("a refusal without Retry-After")

    def _is_right(self, picture: Picture, outcome: str, told: object) -> bool:
        if outcome != "ok":
            if outcome not in _EXCUSES or (outcome == "stopping" and not self._harness.stopping):
                self._harness.problem(f"{outcome} for a sound image")
            return False
        if problem := self._harness.gallery.problem(picture, told):
            self._harness.problem(f"wrong answer: {problem}")
            return False
        return True

    async def _leave(self) -> None:
        connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
        if connection is None:
            return
        picture = self._random.choice(self._harness.gallery.pictures)
        message = head("/classify", len(picture.data)) + picture.data
        moment = self._random.choice(["head", "upload", "waiting", "reading"])
        if moment == "head":  # there is no request yet, and none is counted
            connection.send(message[: self._random.randint(0, 40)])
        elif moment == "upload":
            self._harness.ledger.note_left("/classify")
            connection.send(message[: -self._random.randint(1, len(picture.data) - 1)])
            await asyncio.sleep(self._random.uniform(0.0, 0.02))
        else:
            self._harness.ledger.note_left("/classify")
            if moment == "reading":  # it leaves with a part of the answer unread
                connection.stop_reading()
            connection.send(message)
            await asyncio.sleep(self._random.choice([0.0, 0.001, 0.003, 0.01, 0.03]))
        connection.leave()


def _outcomes(answer: Answer, images: int) -> list[tuple[str, Any]]:
    """What became of each image of a request, with its classification if it has one."""
    if answer.outcome != "ok":
        return [(answer.outcome, None)] * images
    if "results" not in answer.json:
        return [("ok", answer.json)]
    return [(item["error"]["type"] if item["error"] else "ok", item["answer"]) for item in answer.json["results"]]
