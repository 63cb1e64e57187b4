"""Prometheus histograms that cost half of the client library's to feed, which tries one bucket after another."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class _Series:
    """The counts of one combination of labels."""

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Histogram(Collector):
    """Counts values in buckets. Safe to use from several threads.

    Args:
        name: of the metric.
        documentation: of the metric.
        bounds: upper bounds of the buckets, in order, without infinity.
        registry: where it is entered.
        label: the name of its label, if it has one.
    """

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry, label: str = ""
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = [float(bound) for bound in bounds]
        self._label = label
        self._lock = Lock()
        self._series = {} if label else {"": _Series(len(bounds) + 1)}
        registry.register(self)

    def observe(self, value: float, label: str = "") -> None:
        """Count a value, under the value of the label."""
        with self._lock:
            series = self._series.get(label)
            if series is None:
                series = self._series[label] = _Series(len(self._bounds) + 1)
            series.counts[bisect_left(self._bounds, value)] += 1
            series.total += value

    def describe(self) -> list[Metric]:
        """The metric without its values, for the registry."""
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        """The metric, all of one moment."""
        with self._lock:
            told = [(label, series.counts.copy(), series.total) for label, series in self._series.items()]
        family = self._family()
        names = [floatToGoString(bound) for bound in (*self._bounds, math.inf)]  # type: ignore[no-untyped-call]
        for label, counts, total in told:
            buckets = list(zip(names, accumulate(counts), strict=True))
            family.add_metric([label] if self._label else [], buckets, total)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])
