"""A token bucket: what is taken from it comes back at a steady rate, up to what it holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock


class TokenBucket:
    """Full at first. It may be overdrawn, and then takes longer to have something again.

    Args:
        rate: tokens that come back in a second.
        capacity: most tokens it holds.
        clock: seconds that never go back.
    """

    def __init__(self, rate: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._capacity = capacity
        self._clock = clock
        self._tokens = capacity
        self._filled_at = clock()
        self._lock = Lock()

    def wait_s(self, tokens: float) -> float:
        """Seconds until that many are there, 0 where they are; more than the bucket holds are there when it is full."""
        with self._lock:
            self._fill()
            return max(0.0, (min(tokens, self._capacity) - self._tokens) / self._rate)

    def take(self, tokens: float) -> None:
        """Take that many, whether they are there or not."""
        with self._lock:
            self._fill()
            self._tokens -= tokens

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
