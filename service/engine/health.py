"""Whether inference works, told by the last inferences."""

from __future__ import annotations

# In a row. Fewer may be the fault of the images.
_FAILURES = 3


class Health:
    """Counts failures since the last success."""

    def __init__(self) -> None:
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the last inferences all failed."""
        return self._failures >= _FAILURES

    def note(self, *, succeeded: bool) -> None:
        """Note how an inference ended."""
        self._failures = 0 if succeeded else self._failures + 1
