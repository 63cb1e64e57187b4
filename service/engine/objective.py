"""Within what time an answer is worth most: set by the operator, or three times what an unloaded service takes."""

from __future__ import annotations

import math
from collections import deque

# As many times the 99th percentile of the time that answers take when nothing waits.
_TIMES = 3.0
_REMEMBERED, _FEWEST, _SORTED_EVERY = 1000, 50, 50
# What HTTP and decoding add to inference alone, in seconds, for the first guess.
_ADDED_S = 0.002
# Nobody notices less, in seconds, and who is refused waits for longer.
_LEAST_S = 0.1


class Objective:
    """A time in seconds, of which little is known at first.

    Args:
        set_s: by the operator; None to measure it.

    Attributes:
        seconds: the time; infinite where nothing is ever too late.
        is_measured: whether nobody has set it.
        is_strict: whether an operator has, to less than for ever.
    """

    def __init__(self, set_s: float | None) -> None:
        self.seconds = math.inf if set_s is None else set_s
        self.is_measured = set_s is None
        self.is_strict = set_s is not None and set_s < math.inf
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._noted = 0

    def guess(self, inference_s: float) -> None:
        """Begin with what inference alone takes: a service that is started under load never sees anything unloaded."""
        self.seconds = max(_LEAST_S, _TIMES * (inference_s + _ADDED_S))

    def note_unloaded(self, seconds: float) -> None:
        """Tell how long an answer took for which nothing had to wait."""
        if not self.is_measured:
            return
        self._recent.append(seconds)
        self._noted += 1
        if self._noted >= _FEWEST and self._noted % _SORTED_EVERY == 0:
            ordered = sorted(self._recent)
            self.seconds = max(_LEAST_S, _TIMES * ordered[math.ceil(0.99 * len(ordered)) - 1])
