"""The deadline of a request: the client's own, or the service's if that is earlier."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from service.classify.numbers import number_in
from service.errors import ApiError

HEADER = "X-Request-Timeout-Ms"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment, in seconds of `time.perf_counter`."""

    at: float

    @property
    def remaining_s(self) -> float:
        """Seconds until then; negative once it has passed."""
        return self.at - time.perf_counter()


def deadline_within(asked: str | None, arrived: float, longest_ms: float) -> Deadline:
    """The deadline of a request.

    Args:
        asked: by its header, which may want less than the longest time.
        arrived: when it did, in seconds of `time.perf_counter`.
        longest_ms: that the service allows.

    Raises:
        ApiError: the header is no time.
    """
    if asked is None:
        return Deadline(arrived + longest_ms / 1000)
    asked_ms = number_in(asked)
    if not 0 < asked_ms < math.inf:  # what is not a number is not above 0 either
        raise ApiError(422, "invalid_parameter", f"{HEADER} must be a number of milliseconds above 0")
    return Deadline(arrived + min(asked_ms, longest_ms) / 1000)


def upload_timeout() -> ApiError:
    """What a request gets whose deadline has passed before all of it was there."""
    return ApiError(408, "upload_timeout", "the request's body did not arrive within its deadline")
