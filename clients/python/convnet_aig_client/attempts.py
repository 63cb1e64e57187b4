"""When a request is tried again: with growing, random pauses, within one deadline."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

_SHORTEST_S, _LONGEST_S = 0.1, 5.0
# What the request itself may have caused: a second failure is likely, and costs the service a worker.
_ONCE = {"connection_lost", "worker_lost"}


class Attempts:
    """The attempts of one request.

    Args:
        timeout_s: for all of them together.
        most: there may be.
        clock: in seconds.
        chance: a random number from 0 to 1.

    Raises:
        ValueError: the timeout is no positive number.
    """

    def __init__(
        self,
        timeout_s: float,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not 0 < timeout_s < math.inf:
            raise ValueError("the timeout must be a number of seconds above 0")
        self._most = most
        self._clock = clock
        self._chance = chance
        self._deadline = clock() + timeout_s
        self._failures: list[str] = []

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self._deadline - self._clock()

    def pause_after(self, failure: str, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait before the next attempt, or None if there must be none.

        The pauses have "full jitter" (M. Brooker, Exponential Backoff and Jitter, 2015), so that clients that were
        refused together do not come back together.

        Args:
            failure: type of the error that the last attempt ended with.
            retry_after_s: the service does not want to be asked before.
        """
        again = failure in self._failures
        self._failures.append(failure)
        if len(self._failures) >= self._most or (again and failure in _ONCE):
            return None
        backoff_s = self._chance() * min(_LONGEST_S, _SHORTEST_S * 2 ** (len(self._failures) - 1))
        pause_s = backoff_s + (retry_after_s or 0)
        return pause_s if pause_s < self.remaining_s else None
