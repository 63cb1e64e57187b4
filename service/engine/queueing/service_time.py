"""How long workers take for an image."""

from __future__ import annotations

# Of the older batches, how much counts when another has run.
_REMEMBERED = 0.98


class ServiceTime:
    """Running mean over batches, in which every image counts the same."""

    def __init__(self) -> None:
        self._images = 0.0
        self._seconds = 0.0

    @property
    def mean_s(self) -> float:
        """Seconds a worker spends on one image; 0 before any was run."""
        return self._seconds / self._images if self._images else 0.0

    def note(self, seconds: float, images: int) -> None:
        """Tell how long a worker took for a batch."""
        self._seconds = _REMEMBERED * self._seconds + seconds
        self._images = _REMEMBERED * self._images + images
