"""Finding out whether the model runs again: nobody may be sending images, because the service is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.engine.errors import InferenceFailed, WorkerLost
from service.engine.health import Health
from service.engine.workers.supervisor import Supervisor

# How often it is tried, in seconds.
_PULSE_S = 0.5


class Probing:
    """Has idle workers run the model while it fails.

    Args:
        health: says whether it does.
        supervisors: of the workers.
    """

    def __init__(self, health: Health, supervisors: Sequence[Supervisor]) -> None:
        self._health = health
        self._supervisors = supervisors
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look after it from now on."""
        self._task = asyncio.get_running_loop().create_task(self._look_after())

    def end(self) -> None:
        """Look no longer."""
        if self._task:
            self._task.cancel()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_PULSE_S)
            if self._health.failing and (idle := next((each for each in self._supervisors if each.set_aside()), None)):
                await self._try(idle)

    async def _try(self, idle: Supervisor) -> None:
        try:
            await idle.check(1)
        except WorkerLost:  # it comes back by itself
            return
        except InferenceFailed:
            pass
        else:
            self._health.note(succeeded=True)
        idle.serve()
