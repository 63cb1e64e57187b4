"""Finding out whether a model runs again: nobody may be sending images, because it is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from service.engine.errors import InferenceFailed, WorkerLost
from service.engine.health import Health
from service.engine.workers.supervisor import Supervisor

# How often it is tried, in seconds.
_PULSE_S = 0.5


class Probing:
    """Has idle workers run models that fail.

    Args:
        failing: tells which do, by number.
        supervisors: tells those of the workers.
    """

    def __init__(
        self, failing: Callable[[], Mapping[int, Health]], supervisors: Callable[[], Sequence[Supervisor]]
    ) -> None:
        self._failing = failing
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
            for model, health in self._failing().items():
                if idle := next((each for each in self._supervisors() if each.set_aside()), None):
                    await self._try(idle, model, health)

    async def _try(self, idle: Supervisor, model: int, health: Health) -> None:
        try:
            await idle.check(model, 1)
        except WorkerLost:  # it comes back by itself
            return
        except InferenceFailed:
            pass
        else:
            health.note(succeeded=True)
        idle.serve()
