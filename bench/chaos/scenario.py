"""One run of the service, from its start through a storm to its end, and what must hold at every stage."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

from bench.chaos.attackers import Attackers
from bench.chaos.clients import Clients
from bench.chaos.faults import Faults
from bench.chaos.harness import HANG_S, Harness
from bench.chaos.model_folder import ModelFolder
from bench.chaos.pictures import Gallery
from bench.chaos.poisoned_model import poisons
from bench.chaos.service_process import Footprint, ServiceProcess

_WORKERS = 2
_DEADLINE_S, _STUCK_S, _DRAIN_S = 4.0, 3.0, 15.0
_MAX_BYTES, _MAX_PIXELS, _MAX_IMAGES = 500_000, 4_000_000, 8
_MAX_BATCH = {"1": 1, "2": 4}
_FLAGS = (
    f"--workers {_WORKERS} --queue-size 16 --max-bytes {_MAX_BYTES} --max-pixels {_MAX_PIXELS} "
    f"--max-images {_MAX_IMAGES} --deadline-ms {1000 * _DEADLINE_S:.0f} --stuck-seconds {_STUCK_S} "
    f"--drain-seconds {_DRAIN_S} --max-wait-ms 0"
)
# Version 2 can only be run as it was exported, which is also the runtime that runs batches.
_FLAGS_OF = {version: f"{_FLAGS} --max-batch {size}".split() for version, size in _MAX_BATCH.items()}
_FLAGS_OF["2"] += ["--runtime", "onnx"]

_WARM_UP_IMAGES, _MOST_WARM_UPS, _LEVEL_GROWTH = 500, 8, 0.01
_START_S = 60.0
_STEADY, _HASTY, _LEAVERS, _BURST, _LONGEST_BURST_S = 4, 2, 3, 24, 1.5
_MOST_GROWTH = 0.05
_UNEXPECTED = ("unexpected error", "Exception in", "never retrieved", "was destroyed", "dump")


@dataclass
class Report:
    """How a scenario went.

    Attributes:
        version: of the model that was served.
        harness: what clients saw, and what must not have happened.
        faults: workers that were hurt in the storm, by reason.
        before, after: what the service held after its warm-up and after the storm.
    """

    version: str
    harness: Harness
    faults: dict[str, int] = field(default_factory=dict)
    before: Footprint | None = None
    after: Footprint | None = None

    @property
    def growth(self) -> float:
        """By which share of it the memory grew in the storm."""
        if self.before is None or self.after is None:
            return 0.0
        return self.after.resident_bytes / self.before.resident_bytes - 1


class Scenario:
    """One run of the service under faults.

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
        self._folder, self._say = folder, say
        flags = _FLAGS_OF[folder.version]
        self._service = ServiceProcess(folder.path, port, scratch / "cache", scratch / "service.log", flags)
        max_batch = _MAX_BATCH[folder.version]
        self._harness = Harness(port, gallery, _DEADLINE_S, _MAX_BYTES, _MAX_PIXELS, _MAX_IMAGES, max_batch)
        self._clients = Clients(self._harness, random)
        deadly = poisons(gallery.manifest) if folder.version == "2" else {}
        self._attackers = Attackers(self._harness, self._service, deadly, random)
        self._faults = Faults(self._harness, self._clients, self._service, folder)
        self.report = Report(folder.version, self._harness)

    async def run(self, storm_s: float, killed: bool) -> Report:
        """Live.

        Args:
            storm_s: length of the storm, in seconds.
            killed: whether it ends by SIGKILL, and not by SIGTERM.

        """
        try:
            await asyncio.to_thread(self._service.wait_until_it_listens, _START_S)
            await self._stages(storm_s, killed)
        except Exception as error:  # whatever an answer was that nobody foresaw: it is a finding as well
            traceback.print_exc()
            self._harness.problem(f"broken off: {error!r}")
        finally:
            self._service.kill()
        for word in _UNEXPECTED:
            if word in self._service.log():
                self._harness.problem(f"the log has {word!r}")
        return self.report

    async def _stages(self, storm_s: float, killed: bool) -> None:
        self._say(f"version {self.report.version}: warming up")
        await self._harness.expect_ready()
        self.report.before = await self._level()
        self._say(f"version {self.report.version}: a storm of {storm_s:.0f} s")
        await self._storm(storm_s)
        self._say(f"version {self.report.version}: calm, and counting")
        await self._expect_counted()
        await self._harness.expect_ready()
        await self._warm_up()
        self.report.after = await self._footprint(self.report.before)
        if self.report.growth > _MOST_GROWTH:
            self._harness.problem(f"memory grew by {self.report.growth:.1%}")
        self._say(f"version {self.report.version}: its model is damaged")
        await self._faults.damage_model()
        self._say(f"version {self.report.version}: its model is swapped for another")
        await self._faults.swap_model()
        await self._expect_counted()
        self._say(f"version {self.report.version}: it is {'killed' if killed else 'stopped'} under load")
        await (self._faults.kill() if killed else self._faults.stop(_DRAIN_S + HANG_S))

    async def _warm_up(self) -> None:
        """Everything once that takes memory: all kinds of requests, and a full queue."""
        self._harness.over.clear()
        work = [self._clients.steady() for _ in range(_STEADY)] + [self._clients.bursts(_BURST, 0.5)]
        running = asyncio.gather(*work, self._attackers.poisonous())
        await self._attackers.every_kind(slow_too=False)
        enough = self._harness.ledger.images["ok"] + _WARM_UP_IMAGES
        give_up = monotonic() + HANG_S
        while self._harness.ledger.images["ok"] < enough and monotonic() < give_up:
            await asyncio.sleep(0.05)
        await self._harness.end(running)

    async def _level(self) -> Footprint:
        """The most that the service has held once warming it up further adds nothing to speak of."""
        await self._warm_up()
        level = await self._footprint(None)
        rounds_alike = 0
        for _ in range(_MOST_WARM_UPS):
            await self._warm_up()
            found = await self._footprint(None)
            rounds_alike = rounds_alike + 1 if found.resident_bytes <= (1 + _LEVEL_GROWTH) * level.resident_bytes else 0
            level = max(level, found, key=lambda footprint: footprint.resident_bytes)
            if rounds_alike == 2:
                break
        return level

    async def _storm(self, seconds: float) -> None:
        self._harness.over.clear()
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
        give_up = monotonic() + HANG_S
        while not self._attackers.all_faults_seen and monotonic() < give_up:
            await asyncio.sleep(0.05)
        await self._harness.end(running)
        self.report.faults = dict(self._attackers.faults)
        lost = self._lost() - lost_before
        if lost > self._harness.max_batch * sum(self.report.faults.values()):
            self._harness.problem(f"{lost} images lost with {sum(self.report.faults.values())} workers")

    def _lost(self) -> int:
        return self._harness.ledger.images["worker_lost"]

    async def _expect_counted(self) -> None:
        """The counters come to what clients saw; those of clients that left may take a moment."""
        give_up = monotonic() + HANG_S / 2
        while (counted := await self._harness.counted()) is not None:
            found = list(self._harness.ledger.problems(counted))
            if not found or monotonic() > give_up:
                for problem in found:
                    self._harness.problem(f"count: {problem}")
                return
            await asyncio.sleep(0.2)

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
                self._harness.problem(f"files, threads and processes were {held[1]} and are {held[0]}")
                return found
