"""One life of the service, from its start through a storm to its end, and what must hold at every stage."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

from bench.chaos.arena import HANG_S, Arena
from bench.chaos.attackers import Attackers
from bench.chaos.clients import Clients
from bench.chaos.model_folder import ModelFolder
from bench.chaos.pictures import Gallery
from bench.chaos.poisoned_model import poisons
from bench.chaos.service_process import Footprint, ServiceProcess, send, wait_until

_WORKERS = 2
_DEADLINE_S, _STUCK_S, _DRAIN_S = 2.0, 1.5, 15.0
_MAX_BYTES, _MAX_PIXELS, _MAX_IMAGES = 500_000, 4_000_000, 8
_MAX_BATCH = {"1": 1, "2": 4}
_FLAGS = (
    f"--workers {_WORKERS} --queue-size 32 --max-bytes {_MAX_BYTES} --max-pixels {_MAX_PIXELS} "
    f"--max-images {_MAX_IMAGES} --deadline-ms {1000 * _DEADLINE_S:.0f} --stuck-seconds {_STUCK_S} "
    f"--drain-seconds {_DRAIN_S} --max-wait-ms 0"
)
# Version 2 can only be run as it was exported, which is also the runtime that runs batches.
_FLAGS_OF = {version: f"{_FLAGS} --max-batch {size}".split() for version, size in _MAX_BATCH.items()}
_FLAGS_OF["2"] += ["--runtime", "onnx"]

_WARM_UP_S, _MOST_WARM_UPS, _LEVEL_GROWTH = 1.0, 6, 0.01
_START_S = 60.0
_STEADY, _HASTY, _LEAVERS, _BURST, _LONGEST_BURST_S = 4, 2, 3, 24, 1.5
_ACCEPTED = 6  # requests that wait when the service is told to stop
_MOST_GROWTH = 0.05
_UNEXPECTED = ("unexpected error", "Exception in", "never retrieved", "was destroyed", "dump")


@dataclass
class Report:
    """How a life went.

    Attributes:
        version: of the model that was served.
        arena: what clients saw, and what must not have happened.
        faults: workers that were hurt in the storm, by reason.
        before, after: what the service held after its warm-up and after the storm.
    """

    version: str
    arena: Arena
    faults: dict[str, int] = field(default_factory=dict)
    before: Footprint | None = None
    after: Footprint | None = None

    @property
    def growth(self) -> float:
        """By which share of it the memory grew in the storm."""
        if self.before is None or self.after is None:
            return 0.0
        return self.after.resident_bytes / self.before.resident_bytes - 1


class Life:
    """One life.

    Args:
        folder: the model's.
        gallery: of the model that is in it.
        scratch: folder for the log and for what the service makes for this machine.
        port: to serve on.
        random: of everything that is left to chance.
        say: tells the user what happens.
    """

    def __init__(
        self,
        folder: ModelFolder,
        gallery: Gallery,
        scratch: Path,
        port: int,
        random: Random,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._gallery, self._say = folder, gallery, say
        flags = _FLAGS_OF[folder.version]
        self._service = ServiceProcess(folder.path, port, scratch / "cache", scratch / "service.log", flags)
        max_batch = _MAX_BATCH[folder.version]
        self._arena = Arena(port, gallery, _DEADLINE_S, _MAX_BYTES, _MAX_PIXELS, _MAX_IMAGES, max_batch)
        self._clients = Clients(self._arena, random)
        deadly = poisons(gallery.manifest) if folder.version == "2" else {}
        self._attackers = Attackers(self._arena, self._service, deadly, random)
        self.report = Report(folder.version, self._arena)

    async def run(self, storm_s: float, killed: bool) -> Report:
        """Live.

        Args:
            storm_s: length of the storm, in seconds.
            killed: whether it ends by SIGKILL, and not by SIGTERM.

        Raises:
            RuntimeError: the service does not start.
        """
        try:
            await asyncio.to_thread(self._service.wait_until_it_listens, _START_S)
            await self._stages(storm_s, killed)
        finally:
            self._service.kill()
        for word in _UNEXPECTED:
            if word in self._service.log():
                self._problem(f"the log has {word!r}")
        return self.report

    async def _stages(self, storm_s: float, killed: bool) -> None:
        self._say(f"version {self._folder.version}: warming up")
        await self._expect_ready()
        self.report.before = await self._level()
        self._say(f"version {self._folder.version}: a storm of {storm_s:.0f} s")
        await self._storm(storm_s)
        self._say(f"version {self._folder.version}: calm, and counting")
        await self._expect_counted()
        await self._expect_ready()
        await self._warm_up()
        self.report.after = await self._footprint(self.report.before)
        if self.report.growth > _MOST_GROWTH:
            self._problem(f"memory grew by {self.report.growth:.1%}")
        self._say(f"version {self._folder.version}: its model is damaged")
        await self._damage()
        self._say(f"version {self._folder.version}: its model is swapped for another")
        await self._swap()
        await self._expect_counted()
        self._say(f"version {self._folder.version}: it is {'killed' if killed else 'stopped'} under load")
        await (self._kill() if killed else self._stop())

    async def _warm_up(self) -> None:
        """Everything once that takes memory: all kinds of requests, and a full queue."""
        self._arena.over.clear()
        work = [self._clients.steady() for _ in range(_STEADY)] + [self._clients.bursts(_BURST, 0.5)]
        running = asyncio.gather(*work, self._attackers.poisonous())
        await self._attackers.every_kind(slow_too=False)
        await asyncio.sleep(_WARM_UP_S)
        await self._end(running)

    async def _level(self) -> Footprint:
        """What the service holds once warming it up further adds nothing to speak of."""
        level: Footprint | None = None
        for _ in range(_MOST_WARM_UPS):
            await self._warm_up()
            before, level = level, await self._footprint(None)
            if before and level.resident_bytes <= (1 + _LEVEL_GROWTH) * before.resident_bytes:
                break
        assert level is not None
        return level

    async def _storm(self, seconds: float) -> None:
        self._arena.over.clear()
        lost_before = self._lost()
        running = asyncio.gather(
            *(self._clients.steady() for _ in range(_STEADY)),
            *(self._clients.hasty() for _ in range(_HASTY)),
            *(self._clients.leavers() for _ in range(_LEAVERS)),
            self._clients.bursts(_BURST, _LONGEST_BURST_S),
            self._attackers.refused(),
            self._attackers.poisonous(),
            self._attackers.hurtful(),
        )
        await asyncio.wait([running], timeout=seconds)
        await self._end(running)
        self.report.faults = dict(self._attackers.faults)
        lost = self._lost() - lost_before
        if lost > self._arena.max_batch * sum(self.report.faults.values()):
            self._problem(f"{lost} images lost with {sum(self.report.faults.values())} workers")

    async def _end(self, running: asyncio.Future[list[None]]) -> None:
        self._arena.over.set()
        try:
            await asyncio.wait_for(running, 3 * HANG_S)
        except TimeoutError:
            self._problem("hang: agents did not end")

    def _lost(self) -> int:
        return self._arena.ledger.images["worker_lost"]

    async def _expect_counted(self) -> None:
        """The counters come to what clients saw; those of clients that left may take a moment."""
        give_up = monotonic() + HANG_S / 2
        while (counted := await self._arena.counted()) is not None:
            found = list(self._arena.ledger.problems(counted))
            if not found or monotonic() > give_up:
                for problem in found:
                    self._problem(f"count: {problem}")
                return
            await asyncio.sleep(0.2)

    async def _expect_ready(self, ready: bool = True, within_s: float = HANG_S) -> None:
        give_up = monotonic() + within_s
        while (answer := await self._arena.ask("/readyz")) is not None and (answer.status == 200) is not ready:
            if monotonic() > give_up:
                self._problem("not ready" if ready else "ready without a worker")
                return
            await asyncio.sleep(0.1)

    async def _footprint(self, wanted: Footprint | None) -> Footprint:
        """What the service holds when nobody asks it for anything; files and threads must be as many as before."""
        give_up = monotonic() + HANG_S / 2
        while True:
            await asyncio.sleep(0.5)
            found = self._service.footprint()
            held = [(one.files, one.threads, one.processes) for one in (found, wanted or found)]
            if held[0] == held[1]:
                return found
            if monotonic() > give_up:
                self._problem(f"files, threads and processes were {held[1]} and are {held[0]}")
                return found

    async def _damage(self) -> None:
        """Whoever runs goes on; who must start again refuses, and does not once the file is whole."""
        refusals = self._refusals("damaged")
        replaced = len(self._service.replaced())
        self._folder.damage()
        first, *others = self._service.workers()
        await self._lose(first)
        await self._expect(lambda: self._refusals("damaged") > refusals, "a damaged model was not refused")
        await self._expect_right(4, "beside a worker that cannot start")
        for pid in others:
            await self._lose(pid)
        await self._expect_ready(ready=False)
        self._folder.restore()
        await self._expect(lambda: len(self._service.replaced()) >= replaced + _WORKERS, "workers did not come back")
        await self._expect_ready()
        await self._expect_right(4, "after the model was restored")

    async def _swap(self) -> None:
        """Another model in the same folder: this one is served to the end, by the workers that are left."""
        refusals = self._refusals("is not the one that was there")
        self._folder.swap()
        await self._expect_right(4, "after another model took its place")
        await self._lose(self._service.workers()[0])
        await self._expect(
            lambda: self._refusals("is not the one that was there") > refusals, "another model was not refused"
        )
        await self._expect_right(4, "beside a worker that would serve another model")

    async def _stop(self) -> None:
        """What was accepted is answered, however many more come."""
        (worker,) = [pid for pid in self._service.workers() if send(pid, signal.SIGSTOP)][:1]
        accepted = asyncio.create_task(self._clients.once(_ACCEPTED))
        await self._expect_queued(_ACCEPTED - self._arena.max_batch)
        self._arena.over.clear()
        self._arena.stopping = True
        crowd = asyncio.gather(*(self._clients.steady() for _ in range(_BURST)))
        await asyncio.sleep(0.1)
        self._service.terminate()
        await asyncio.sleep(0.1)
        for pid in self._service.workers():
            send(pid, signal.SIGCONT)
        right = await accepted
        if not all(right):
            self._problem(f"{right.count(False)} accepted requests were not answered when it stopped")
        status = await asyncio.to_thread(self._service.exit_status, _DRAIN_S + HANG_S)
        await self._end(crowd)
        if status != 0:
            self._problem(f"exit status {status}")
        await self._expect(lambda: not send(worker, signal.SIGCONT), "a worker outlived the service")

    async def _kill(self) -> None:
        """Its workers do not outlive it."""
        self._arena.over.clear()
        self._arena.stopping = True
        crowd = asyncio.gather(*(self._clients.steady() for _ in range(_BURST)), return_exceptions=True)
        await asyncio.sleep(0.3)
        workers = self._service.workers()
        self._service.kill_alone()
        await self._expect(
            lambda: not any(send(pid, signal.SIGCONT) for pid in workers), "workers outlived the service"
        )
        self._arena.over.set()
        await crowd

    async def _lose(self, pid: int) -> None:
        """A worker dies while nobody asks it for anything."""
        self._arena.ledger.losses["died"] += 1
        if not send(pid, signal.SIGKILL):
            self._problem("a worker ended by itself")

    async def _expect(self, condition: Callable[[], bool], problem: str) -> None:
        if not await asyncio.to_thread(wait_until, condition, HANG_S):
            self._problem(problem)

    async def _expect_right(self, count: int, when: str) -> None:
        right = await self._clients.once(count)
        if not all(right):
            self._problem(f"no answer {when}")

    async def _expect_queued(self, count: int) -> None:
        give_up = monotonic() + _STUCK_S / 2
        while (answer := await self._arena.ask("/metrics")) is not None:
            lines = answer.body.decode().splitlines()
            (depth,) = [float(line.split()[1]) for line in lines if line.startswith("aig_queue_depth ")]
            if depth >= count:
                return
            if monotonic() > give_up:
                self._problem("requests did not queue")
                return
            await asyncio.sleep(0.02)

    def _refusals(self, words: str) -> int:
        return sum("cannot be started" in line and words in line for line in self._service.log().splitlines())

    def _problem(self, problem: str) -> None:
        self._arena.problems[problem] += 1
