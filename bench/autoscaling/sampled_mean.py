"""A metric as an autoscaler sees it: a mean over the past, as old as its last collection."""

from __future__ import annotations

from collections import deque


class SampledMean:
    """The mean of a number told once a second.

    Args:
        over_s: over how many of the last seconds.
        every_s: how often it is collected; in between it stays as it was.
    """

    def __init__(self, over_s: int, every_s: int) -> None:
        self._values = deque[float](maxlen=over_s)
        self._every_s = every_s
        self.value: float | None = None
        """As last collected; None before."""

    def note(self, now_s: int, value: float) -> None:
        """Tell the number of the second that begins at `now_s`."""
        self._values.append(value)
        if (now_s + 1) % self._every_s == 0:
            self.value = sum(self._values) / len(self._values)
