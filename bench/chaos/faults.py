"""What happens to a service besides its requests: files that change behind its back, and ends under load."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from bench.chaos.clients import Clients
from bench.chaos.harness import HANG_S, Harness
from bench.chaos.model_folder import ModelFolder
from bench.chaos.service_process import ServiceProcess, is_alive, send, wait_until

_ACCEPTED = 10  # requests that wait when the service is told to stop
_CROWD = 24  # clients that go on asking meanwhile
_QUEUE_S = 1.0  # for these to queue
_QUIET_S = 0.3  # after which no more of them come
_CALM_S = 1.1  # after which a service that had to refuse requests lets its queue grow again
_BACK_S = 60.0  # for a worker to be tried again, which the service does at ever longer intervals
_ANOTHER_MODEL = "has changed since the service opened it"


class Faults:
    """All faults of one scenario.

    Args:
        harness: where clients meet the service.
        clients: to see whether it still answers.
        service: its processes.
        folder: of its model.
    """

    def __init__(self, harness: Harness, clients: Clients, service: ServiceProcess, folder: ModelFolder) -> None:
        self._harness, self._clients, self._service, self._folder = harness, clients, service, folder

    async def damage_model(self) -> None:
        """Whoever runs goes on; who must start again refuses, and does not once the file is whole."""
        refusals = self._refusals("damaged")
        replaced = len(self._service.replaced())
        self._folder.damage()
        workers = self._service.workers()
        first, others = workers[:1], workers[1:]
        self._lose(first)
        await self._expect(lambda: self._refusals("damaged") > refusals, "a damaged model was not refused")
        await self._expect_right(4, "beside a worker that cannot start")
        self._lose(others)
        await self._harness.expect_ready(ready=False)
        self._folder.restore()
        back = replaced + len(workers)
        await self._expect(lambda: len(self._service.replaced()) >= back, "workers did not come back", _BACK_S)
        await self._harness.expect_ready()
        await self._expect_right(4, "after the model was restored")

    async def swap_model(self) -> None:
        """Another model in the same folder: this one is served to the end, by the workers that are left."""
        refusals = self._refusals(_ANOTHER_MODEL)
        self._folder.swap()
        await self._expect_right(4, "after another model took its place")
        self._lose(self._service.workers()[:1])
        await self._expect(lambda: self._refusals(_ANOTHER_MODEL) > refusals, "another model was not refused")
        await self._expect_right(4, "beside a worker that would serve another model")

    async def stop(self, within_s: float) -> None:
        """SIGTERM: what was accepted is answered, however many more come; nothing is left of the service.

        Args:
            within_s: it must have ended, in seconds.
        """
        workers = self._service.workers()
        for pid in workers:  # so that requests wait for sure
            send(pid, signal.SIGSTOP)
        accepted = asyncio.create_task(self._clients.once(_ACCEPTED))
        await self._expect_queued()
        crowd = self._crowd()
        await asyncio.sleep(0.1)
        self._service.terminate()
        await asyncio.sleep(0.1)
        for pid in workers:
            send(pid, signal.SIGCONT)
        if not all(right := await accepted):
            self._harness.problem(f"{right.count(False)} accepted requests were not answered when it stopped")
        status = await asyncio.to_thread(self._service.exit_status, within_s)
        await self._harness.end(crowd)
        if status != 0:
            self._harness.problem(f"exit status {status}")
        await self._expect_gone(workers)

    async def kill(self) -> None:
        """SIGKILL: its workers do not outlive it."""
        crowd = self._crowd()
        self._harness.killed = True
        await asyncio.sleep(0.3)
        workers = self._service.workers()
        self._service.kill_alone()
        await self._expect_gone(workers)
        await self._harness.end(crowd)

    def _crowd(self) -> asyncio.Future[list[None]]:
        self._harness.over.clear()
        self._harness.stopping = True
        return asyncio.gather(*(self._clients.steady() for _ in range(_CROWD)))

    def _lose(self, workers: list[int]) -> None:
        """Workers die while nobody asks them for anything."""
        for pid in workers:
            self._harness.ledger.losses["died"] += 1
            if not send(pid, signal.SIGKILL):
                self._harness.problem("a worker ended by itself")

    async def _expect(self, condition: Callable[[], bool], problem: str, within_s: float = HANG_S) -> None:
        if not await asyncio.to_thread(wait_until, condition, within_s):
            self._harness.problem(problem)

    async def _expect_gone(self, workers: list[int]) -> None:
        await self._expect(lambda: not any(map(is_alive, workers)), "workers outlived the service")

    async def _expect_right(self, count: int, when: str) -> None:
        await asyncio.sleep(_CALM_S)
        if not all(await self._clients.once(count)):
            self._harness.problem(f"no answer {when}")

    async def _expect_queued(self) -> None:
        """Wait until requests are queued and no more come: how many a worker is sent ahead depends on its speed."""
        clock = asyncio.get_running_loop().time
        seen, since, give_up = 0.0, clock(), clock() + _QUEUE_S
        while (answer := await self._harness.ask("/metrics")) is not None:
            lines = answer.body.decode().splitlines()
            (depth,) = [float(line.split()[-1]) for line in lines if line.startswith("aig_queue_depth{")]
            if depth != seen:
                seen, since = depth, clock()
            if depth and clock() - since >= _QUIET_S:
                return
            if not depth and clock() > give_up:
                self._harness.problem("requests did not queue")
                return
            await asyncio.sleep(0.02)

    def _refusals(self, words: str) -> int:
        return sum("cannot be started" in line and words in line for line in self._service.log().splitlines())
