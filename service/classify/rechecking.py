"""Some of the images that had less compute than was asked for, run again in full when there is nothing else to do."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from artifact.manifest import ALWAYS
from service.engine.engine import Engine
from service.engine.errors import EngineError
from service.engine.job import Answer, Outcome
from service.observability.model_metrics import ModelMetrics

# How often is looked, in seconds, and what is kept until then.
_PULSE_S = 0.2
_MOST_KEPT, _MOST_BYTES = 16, 1_000_000
_DEADLINE_S = 10.0


class Rechecks:
    """Counts how often the whole network predicts another class than the part of it that answered.

    Args:
        engine: runs them, while it has nothing else to do.
        metrics: count what comes of it.
        share: of the degraded answers that are kept for it.
        random: chooses them.
    """

    def __init__(self, engine: Engine, metrics: ModelMetrics, share: float, random: Random | None = None) -> None:
        self._engine, self._metrics = engine, metrics
        self._share = share
        self._random = random or Random()
        self._kept: deque[tuple[bytes, bool, int]] = deque(maxlen=_MOST_KEPT)
        self._task: asyncio.Task[None] | None = None

    def consider(self, image: bytes, answer: Answer, *, is_tensor: bool = False) -> None:
        """Keep an image, which is a file or a tensor, that had a degraded answer; perhaps."""
        if self._random.random() < self._share and len(image) <= _MOST_BYTES:
            self._kept.append((image, is_tensor, _predicted(answer.logits)))

    def begin(self) -> None:
        """Look for idle time from now on."""
        if self._share:
            self._task = asyncio.get_running_loop().create_task(self._look())

    def end(self) -> None:
        """Look no longer."""
        if self._task:
            self._task.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_PULSE_S)
            if self._kept and self._engine.ready and self._engine.idle:
                await self._run(*self._kept.popleft())

    async def _run(self, image: bytes, is_tensor: bool, predicted: int) -> None:
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def answered(outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        with suppress(TimeoutError, EngineError):
            async with asyncio.timeout(_DEADLINE_S):
                job = self._engine.submit(image, _DEADLINE_S, answered, gate_offset=ALWAYS, is_tensor=is_tensor)
                try:
                    outcome = await done
                finally:
                    job.withdraw()
            if isinstance(outcome, Answer):
                self._metrics.count_recheck(same=_predicted(outcome.logits) == predicted)


def _predicted(logits: Sequence[float]) -> int:
    return max(range(len(logits)), key=logits.__getitem__)
