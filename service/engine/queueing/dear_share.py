"""How much of the workers' time dear jobs may have."""

from __future__ import annotations

from collections.abc import Callable


class DearShare:
    """Half of the workers that are in service; of a single one, half of the time.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running = 0
        self._begun_at = self._again_at = 0.0  # of the last; before the second others come first

    def is_used_up(self, workers: int) -> bool:
        """Whether no more dear jobs may run on so many workers, by those that run or have run."""
        return self._running >= workers // 2 if workers > 1 else self.wait_s(workers) > 0

    def wait_s(self, workers: int) -> float:
        """How long a worker that is the only one still has for others, in seconds."""
        return max(0.0, self._again_at - self._clock()) if workers == 1 else 0.0

    def begin(self) -> None:
        """Note that a worker is given a dear job."""
        self._running += 1
        self._begun_at = self._clock()

    def end(self) -> None:
        """Note that a worker is done with a dear job, or was lost with it."""
        self._running -= 1
        now = self._clock()
        self._again_at = now + (now - self._begun_at)
