"""Finding out whether the model runs again: nobody may be sending images, because the service is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic

from service.engine.errors import InferenceFailed, WorkerLost
from service.engine.health import Health
from service.engine.job import Answer, PayloadT
from service.engine.queueing.dispatcher import Dispatcher
from service.engine.workers.supervisor import Caretaker

# How often it is tried, in seconds.
_PULSE_S = 0.5


class Probing(Generic[PayloadT]):
    """Has idle workers run the model while it fails.

    Args:
        health: says whether it does.
        caretakers: of the workers.
        dispatcher: knows which of them have nothing to do.
    """

    def __init__(
        self, health: Health, caretakers: Sequence[Caretaker[PayloadT]], dispatcher: Dispatcher[PayloadT, Answer]
    ) -> None:
        self._health = health
        self._caretakers = caretakers
        self._dispatcher = dispatcher
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
            if self._health.failing and (idle := next(filter(self._dispatcher.leave, self._caretakers), None)):
                await self._try(idle)

    async def _try(self, idle: Caretaker[PayloadT]) -> None:
        try:
            await idle.check(1)
        except WorkerLost:  # it comes back by itself
            return
        except InferenceFailed:
            pass
        else:
            self._health.note(succeeded=True)
        idle.serve()
