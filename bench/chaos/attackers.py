"""Agents that mean no good: they send what must be refused, hurt the workers, and ask for what the model fails on."""

from __future__ import annotations

import asyncio
import signal
from random import Random

from bench.chaos.connection import Answer, Connection, form, head
from bench.chaos.harness import HANG_S, Harness
from bench.chaos.hostile_requests import HostileRequest, hostile_requests
from bench.chaos.service_process import ServiceProcess, send

_PIECE, _PIECE_S = 20, 0.1  # bytes at a time, and the time between them, of those who send slowly
# What may become of any image in a storm, and of one on which the model fails.
_EXCUSES = ("overloaded", "worker_lost", "deadline_exceeded")
_POISONED = ("inference_failed", *_EXCUSES)
_FAULTS = {"died": signal.SIGKILL, "stuck": signal.SIGSTOP}


class Attackers:
    """All attackers of one scenario.

    Args:
        harness: where they meet the service.
        service: its processes.
        poisons: images on which the model fails, if it does on any.
        random: of all their choices.
    """

    def __init__(self, harness: Harness, service: ServiceProcess, poisons: dict[str, bytes], random: Random) -> None:
        self._harness = harness
        self._service = service
        self._poisons = list(poisons.values())
        self._random = random
        self.faults: dict[str, int] = dict.fromkeys(_FAULTS, 0)

    async def refused(self) -> None:
        """Send one kind of hostile request after another."""
        while not self._harness.over.is_set():
            await self.every_kind(self._random.uniform(0.0, 0.1))

    async def every_kind(self, longest_pause_s: float = 0.0, slow_too: bool = True) -> None:
        """Send every kind once, in random order; those who are slow send while the others do."""
        kinds = list(hostile_requests(self._harness, self._random))
        self._random.shuffle(kinds)
        slow = [asyncio.create_task(self._attack(kind)) for kind in kinds if kind.dribbled and slow_too]
        for kind in kinds:
            if not kind.dribbled:
                await self._attack(kind)
                await asyncio.sleep(self._random.uniform(0.0, longest_pause_s))
            if self._harness.over.is_set():
                break
        await asyncio.gather(*slow)

    async def poisonous(self) -> None:
        """Send images on which the model fails, alone and among others."""
        while self._poisons and not self._harness.over.is_set():
            await (self._poison_alone() if self._random.random() < 0.5 else self._poison_among_others())
            await self._harness.pause(self._random.uniform(0.0, 0.3))

    @property
    def all_faults_seen(self) -> bool:
        """Whether workers were hurt in every way."""
        return all(self.faults[reason] for reason in _FAULTS)

    async def hurtful(self) -> None:
        """Kill workers, and stop them so that they hang."""
        reasons = list(_FAULTS)
        while not self._harness.over.is_set():
            await self._harness.pause(self._random.uniform(0.3, 1.5))
            self._random.shuffle(reasons)
            for reason in reasons:
                if not self._harness.over.is_set():
                    await self._hurt(reason)

    async def _hurt(self, reason: str) -> None:
        """One worker is lost; return when another has taken its place."""
        replaced = len(self._service.replaced())
        workers = self._service.workers()
        if not workers or not send(self._random.choice(workers), _FAULTS[reason]):
            self._harness.problem("a worker ended by itself")
            return
        self.faults[reason] += 1
        self._harness.ledger.losses[reason] += 1
        give_up = asyncio.get_running_loop().time() + HANG_S
        while len(self._service.replaced()) == replaced:
            if asyncio.get_running_loop().time() > give_up:
                self._harness.problem(f"a worker that {reason} was not replaced")
                return
            await asyncio.sleep(0.05)
            if reason == "stuck":  # it is found out by the next image
                await self._nudge()

    async def _nudge(self) -> None:
        connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
        if connection is None:
            return
        picture = self._random.choice(self._harness.gallery.pictures)
        self._harness.ledger.note_left("/classify")
        connection.send(head("/classify", len(picture.data)) + picture.data)
        await asyncio.sleep(0.02)
        connection.leave()

    async def _attack(self, hostile: HostileRequest) -> None:
        connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
        if connection is None:
            return
        sending = asyncio.create_task(_dribble(connection, hostile.data)) if hostile.dribbled else None
        if sending is None:
            connection.send(hostile.data)
        came = connection.closure() if hostile.unanswered else connection.answer()
        answer = await self._harness.patiently(came, hostile.name)
        if sending is not None:
            sending.cancel()
        connection.leave()
        if answer is None:
            return
        if hostile.broken and answer.outcome == "http_400":
            self._harness.ledger.note_broken(hostile.route)
        elif hostile.counted:
            self._harness.ledger.note(hostile.route, answer, self._harness.max_images + 1)
        if answer.outcome not in hostile.outcomes or not answer.body:
            self._harness.problem(f"{answer.status} {answer.outcome} for {hostile.name}")

    async def _poison_alone(self) -> None:
        poison = self._random.choice(self._poisons)
        answer = await self._post("/classify", "image/png", poison)
        if answer is not None and answer.outcome not in _POISONED:
            self._harness.problem(f"{answer.outcome} for a poisonous image")

    async def _poison_among_others(self) -> None:
        pictures = self._random.choices(self._harness.gallery.pictures, k=3)
        place = self._random.randint(0, 3)
        files = [picture.data for picture in pictures]
        files.insert(place, self._random.choice(self._poisons))
        content_type, body = form("files", files)
        answer = await self._post("/classify/batch", content_type, body, len(files))
        if answer is None or answer.outcome != "ok":
            return
        results = answer.json["results"]
        poisoned = results.pop(place)
        if not poisoned["error"] or poisoned["error"]["type"] not in _POISONED:
            self._harness.problem("a poisonous image was answered")
        for picture, item in zip(pictures, results, strict=True):
            if item["error"]:
                if item["error"]["type"] not in _EXCUSES:
                    self._harness.problem(f"{item['error']['type']} beside a poisonous image")
            elif problem := self._harness.gallery.problem(picture, item["answer"]):
                self._harness.problem(f"wrong answer beside a poisonous image: {problem}")

    async def _post(self, route: str, content_type: str, body: bytes, images: int = 1) -> Answer | None:
        connection = await self._harness.patiently(Connection.open(self._harness.port), "connecting")
        if connection is None:
            return None
        connection.send(head(f"{route}?top_k=1000", len(body), content_type) + body)
        answer = await self._harness.patiently(connection.answer(), "a poisonous image")
        connection.leave()
        if answer is not None:
            self._harness.ledger.note(route, answer, images)
        return answer


async def _dribble(connection: Connection, data: bytes) -> None:
    """All in pieces, and then single bytes without end, as if there were more to come."""
    pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    for piece in pieces:
        connection.send(piece)
        await asyncio.sleep(_PIECE_S)
    while True:
        connection.send(b"a")
        await asyncio.sleep(_PIECE_S)
