"""What a run of the load generator measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

OK, REFUSED = 200, 429
PERCENTILES = (50.0, 95.0, 99.0, 99.9)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """Every request of a run, warm-up included, in the order in which they were scheduled.

    Times are in seconds from the start of the measured window, so those of the warm-up are negative. Throughput and
    goodput count answers that came within the window; everything else is of the requests scheduled within it.

    Attributes:
        scheduled_s: when each request should have been sent: its arrival in an open loop; in a closed loop, when its
            client was free.
        sent_s: when it was written to a connection; NaN if it never was.
        latency_s: from `scheduled_s` until its answer was complete, or until it had failed.
        status: of the answer; 0 where a connection failed or the time was up.
        retry_after: whether the answer had that header.
        lag_s: how late the generator took the request up. Where this nears the latencies, the generator was the
            bottleneck. 0 in a closed loop, which has no schedule to fall behind.
        seconds: length of the measured window.
        cpu_s: processor time the generator spent on all of them.
        checked: answers that were verified.
        wrong: those that were wrong.
    """

    scheduled_s: Floats
    sent_s: Floats
    latency_s: Floats
    status: NDArray[np.int64]
    retry_after: NDArray[np.bool_]
    lag_s: Floats
    seconds: float
    cpu_s: float
    checked: int = 0
    wrong: int = 0

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Which requests were scheduled within the window."""
        return (self.scheduled_s >= 0) & (self.scheduled_s < self.seconds)

    @property
    def images_per_s(self) -> float:
        """Images classified within the window, per second."""
        return self.goodput(float("inf"))

    def goodput(self, limit_s: float) -> float:
        """Images classified within the window by answers that took at most `limit_s`, per second."""
        finished_s = self.scheduled_s + self.latency_s
        in_window = (finished_s >= 0) & (finished_s < self.seconds)
        return int((in_window & (self.status == OK) & (self.latency_s <= limit_s)).sum()) / self.seconds

    @property
    def counts(self) -> dict[int, int]:
        """How many requests ended with each status, 0 for failed connections and timeouts."""
        statuses, counts = np.unique(self.status[self.measured], return_counts=True)
        return {int(status): int(count) for status, count in zip(statuses, counts, strict=True)}

    def percentiles_ms(self, status: int = OK) -> dict[str, float | None]:
        """Percentiles of the latency of answers with this status, as p50, p95, p99 and p99.9; None without any."""
        latency_ms = 1000 * self.latency_s[self.measured & (self.status == status)]
        return {f"p{percent:g}": _percentile(latency_ms, percent) for percent in PERCENTILES}

    @property
    def refusals_with_retry_after(self) -> float | None:
        """Share of the 429 answers that say when to come back; None without any."""
        refused = self.measured & (self.status == REFUSED)
        return float(self.retry_after[refused].mean()) if refused.any() else None

    @property
    def lag_ms(self) -> dict[str, float | None]:
        """How late the generator itself was."""
        lag_ms = 1000 * self.lag_s[self.measured]
        return {"p50": _percentile(lag_ms, 50), "p99": _percentile(lag_ms, 99), "max": _percentile(lag_ms, 100)}

    @property
    def cpu_us_per_request(self) -> float:
        """Processor time of the generator for a request, in microseconds; it is taken from what the server has."""
        return 1e6 * self.cpu_s / max(1, len(self.status))

    def summary(self) -> dict[str, object]:
        """All figures, fit for JSON."""
        return {
            "images_per_s": self.images_per_s,
            "latency_ms": self.percentiles_ms(),
            "counts": {str(status): count for status, count in self.counts.items()},
            "refusal_latency_ms": self.percentiles_ms(REFUSED),
            "refusals_with_retry_after": self.refusals_with_retry_after,
            "checked": self.checked,
            "wrong": self.wrong,
            "generator": {"cpu_us_per_request": self.cpu_us_per_request, "lag_ms": self.lag_ms},
            "seconds": self.seconds,
        }


def _percentile(values: Floats, percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None
