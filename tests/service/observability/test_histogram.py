from __future__ import annotations

import math

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.observability.histogram import Histogram

VALUES = (0.0, 0.1, 0.25, 0.2500001, 3.0, 1e9, math.inf)
BOUNDS = (0.1, 0.25, 1, 5)


@pytest.mark.parametrize("label", ["", "route"])
def test_histogram_reads_as_the_librarys_own(label: str) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    cheap = Histogram("a_seconds", 'Of "a".', BOUNDS, ours, label)
    library = prometheus_client.Histogram(
        "a_seconds", 'Of "a".', [label] if label else [], buckets=BOUNDS, registry=theirs
    )
    assert generate_latest(ours) == generate_latest(theirs)
    for value in VALUES:
        for name in ("/b", '/"a"') if label else ("",):
            cheap.observe(value, name)
            (library.labels(name) if label else library).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_two_histograms_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    Histogram("a_seconds", "Of a.", BOUNDS, registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Histogram("a_seconds", "Of a.", BOUNDS, registry)
