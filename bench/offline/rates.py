"""Images a second of an engine, from memory and from a dataset, in turns."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from tqdm import tqdm

from artifact.manifest import read_manifest
from bench.images import probe_jpegs
from bench.offline.resuming import with_descendants
from service.dataset.opening import Reading, open_dataset
from service.dataset.output import opened_output
from service.dataset.rows import Columns
from service.dataset.run import Work, classify, favouring_workers, most_images
from service.engine.crew import Crew
from service.engine.engine import Engine
from service.engine.job import Answer, Outcome
from service.images.workers import begin_pool
from service.settings import Settings

_PART_ROWS = 4096


@dataclass(frozen=True)
class Rates:
    """Images a second.

    Attributes:
        engine, dataset: medians.
        engine_cpu_ms, dataset_cpu_ms: processor time of an image, of all processes, in ms; medians.
        shares: of each measurement with a dataset, of the mean of the engine's own right before and right after it.
    """

    engine: float
    dataset: float
    engine_cpu_ms: float
    dataset_cpu_ms: float
    shares: list[float]

    @property
    def share(self) -> float:
        """The median."""
        return median(self.shares)


async def compare(model: Path, shards: Path, folder: Path, images: int, rounds: int) -> Rates:
    """Have one engine run so many images from memory and from shards, in turns."""
    settings, manifest, files = Settings(model=model), read_manifest(model), probe_jpegs(model)
    pool = begin_pool(settings, model, manifest)()
    crew = Crew(pool.workers)
    engine = Engine(crew, pool.model, most_images(pool))
    own, of_dataset = [], []
    await crew.start()
    try:
        with favouring_workers():
            await _from_memory(engine, files, images)  # until all workers run
            own.append(await _rate(images, _from_memory(engine, files, images)))
            for number in tqdm(range(rounds), desc="rounds"):
                dataset = open_dataset([str(shards)], Reading(settings.max_bytes))
                with opened_output(folder / f"answers-{number}", {}) as output:
                    work = Work(dataset, output, Columns(manifest, 5), 0.0, _PART_ROWS, False, 1.0)
                    of_dataset.append(await _rate(images, classify(engine, work)))
                    if output.tally.images != images or output.tally.errors:
                        raise RuntimeError(f"not every image was classified: {output.tally}")
                own.append(await _rate(images, _from_memory(engine, files, images)))
    finally:
        await crew.stop(0)
    yardsticks = [(before + after) / 2 for (before, _), (after, _) in pairwise(own)]
    return Rates(
        median(rate for rate, _ in own),
        median(rate for rate, _ in of_dataset),
        median(cpu_ms for _, cpu_ms in own),
        median(cpu_ms for _, cpu_ms in of_dataset),
        [rate / yardstick for (rate, _), yardstick in zip(of_dataset, yardsticks, strict=True)],
    )


async def _rate(images: int, run: Awaitable[None]) -> tuple[float, float]:
    """Images a second, and milliseconds of processor time for each."""
    started, cpu_s = time.perf_counter(), _cpu_s()
    await run
    return images / (time.perf_counter() - started), 1000 * (_cpu_s() - cpu_s) / images


def _cpu_s() -> float:
    """Processor time of this process and of those that it and these have started, in seconds."""
    ticks = 0
    for pid in with_descendants(os.getpid()):
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(told[11]) + int(told[12])  # utime and stime, see proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


async def _from_memory(engine: Engine, files: Sequence[bytes], images: int) -> None:
    """Have an engine run so many images, as many at a time as it has room for; nothing else is done."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    begun = ended = 0

    def submit() -> None:
        nonlocal begun
        begun += 1
        engine.submit(files[begun % len(files)], math.inf, take, follows=True)

    def take(outcome: Outcome) -> None:
        nonlocal ended
        ended += 1
        if not isinstance(outcome, Answer):
            done.set_exception(outcome)
        elif begun < images:
            submit()
        elif ended == images:
            done.set_result(None)

    for _ in range(min(images, engine.queue_capacity)):
        submit()
    await done
