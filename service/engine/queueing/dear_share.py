"""How much of the workers' time dear jobs may have."""

from __future__ import annotations

from collections.abc import Callable


class DearShare:
    """Half of the workers; of a single one, half of the time.

    Args:
        workers: how many there are.
        clock: seconds that never go back.
    """

    def __init__(self, workers: int, clock: Callable[[], float]) -> None:
        self._workers = workers
        self._clock = clock
        self._running = 0
        self._begun_at = self._again_at = 0.0  # of the last; before the second others come first

    @property
    def is_used_up(self) -> bool:
        """Whether no more of them may run now, as far as that depends on those that run or have run."""
        return self._running >= self._workers // 2 if self._workers > 1 else self.wait_s > 0

    @property
    def wait_s(self) -> float:
        """How long a single worker still has for others, in seconds."""
        return max(0.0, self._again_at - self._clock()) if self._workers == 1 else 0.0

    def begin(self) -> None:
        """Note that a worker is given a dear job."""
        self._running += 1
        self._begun_at = self._clock()

    def end(self) -> None:
        """Note that a worker is done with a dear job, or was lost with it."""
        self._running -= 1
        now = self._clock()
        self._again_at = now + (now - self._begun_at)
