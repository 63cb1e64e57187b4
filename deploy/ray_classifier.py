"""An actor for datasets on a Ray cluster: it has the engine of the single process, and does one share at a time."""

from __future__ import annotations

import asyncio
import math
import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import uvloop
from pydantic_settings import SettingsError

from artifact.manifest import ArtifactError
from service.dataset.command import Assignment, Options, open_assignment
from service.dataset.items import DatasetError
from service.dataset.output import Finished, Output, Part, part_names, require_begun
from service.dataset.run import classify, favouring_workers, start_engine
from service.engine.crew import Crew
from service.engine.engine import Engine
from service.engine.errors import EngineError
from service.images.workers import begin_pool
from service.observability.logs import logged
from service.settings import Settings

WHOLE = -1
"""In the place of the number of a part: all of the source."""

_DONE = Finished({0}, 0)


@dataclass(frozen=True)
class Asked:
    """What every actor is told.

    Attributes:
        settings: of the service, with the number of workers.
        inputs, folder: absolute, and the same on all machines.
        options: as on the command line.
        identity: what the answers depend on, as seen by the process that began.
    """

    settings: Settings
    inputs: Sequence[str]
    folder: Path
    options: Options
    identity: dict[str, Any]


class Classifier:
    """An actor. It opens the model with its first share, so that what is wrong with it is told like an answer.

    Args:
        asked: of all of them.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._opened: tuple[Assignment, Engine] | None = None
        self._loop = uvloop.new_event_loop()
        Thread(target=self._loop.run_forever, name="engine", daemon=True).start()
        self._log = ExitStack()
        self._log.enter_context(logged(asked.settings.log_format, asked.settings.log_level))

    def __call__(self, share: dict[str, Any]) -> dict[str, Any]:
        """Classify what is missing of a share; tell how many images that were, or why it cannot be done."""
        try:
            if self._opened is None:
                self._opened = self._open()
            return {**share, "images": self._classify(*self._opened, share["source"], share["part"]), "error": ""}
        except (ArtifactError, DatasetError, EngineError, SettingsError) as error:
            return {**share, "images": 0, "error": f"{platform.node()}: {error}"}

    def _open(self) -> tuple[Assignment, Engine]:
        asked = self._asked
        assignment = open_assignment(asked.settings, asked.inputs, asked.options)
        require_begun(asked.folder, assignment.identity)
        pool = begin_pool(asked.settings, asked.settings.model, assignment.manifest)()
        crew = Crew(pool.workers)
        return assignment, asyncio.run_coroutine_threadsafe(start_engine(crew, pool), self._loop).result()

    def _classify(self, assignment: Assignment, engine: Engine, source: int, part: int) -> int:
        names = part_names(source) if part == WHOLE else Part(source, part).file_name
        # Others may have begun it, and may even be at it still where Ray only takes them for dead.
        output = Output(self._asked.folder, assignment.identity, names, f"{uuid4().hex}-")
        here = output.finished.get(source, Finished())
        if part != WHOLE:
            parts = part_count(assignment)
            here = Finished(set(range(parts)) - ({part} - here.chunks), parts - 1)
        output.finished = dict.fromkeys(range(len(assignment.dataset.sources)), _DONE) | {source: here}
        before = output.tally.images

        async def work() -> None:
            with favouring_workers():
                await classify(engine, assignment.work(output))

        asyncio.run_coroutine_threadsafe(work(), self._loop).result()
        return output.tally.images - before


def part_count(assignment: Assignment) -> int:
    """How many parts a folder or a list has; one without images has one."""
    return max(1, math.ceil((assignment.dataset.images or 0) / assignment.options.rows_per_part))
