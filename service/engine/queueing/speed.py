"""How long workers take for requests."""

from __future__ import annotations

# Of the older batches, how much counts when another has run.
_REMEMBERED = 0.98


class Speed:
    """Running mean over batches, in which every request counts the same."""

    def __init__(self) -> None:
        self._requests = 0.0
        self._seconds = 0.0

    @property
    def seconds_each(self) -> float:
        """That a worker spends on one request; 0 before any was run."""
        return self._seconds / self._requests if self._requests else 0.0

    def note(self, seconds: float, requests: int) -> None:
        """Tell how long a worker took for a batch."""
        self._seconds = _REMEMBERED * self._seconds + seconds
        self._requests = _REMEMBERED * self._requests + requests
