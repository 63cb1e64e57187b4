from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from docs.hooks.tables import _registry
from service.frontends.sums import GAUGES, Sums, Told, told_by


class _Part:
    """The metrics of a front end that serves some versions of a model."""

    def __init__(self, *versions: str) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("aig_requests", "Requests.", ["outcome"], registry=registry)
        self.seconds = Histogram("aig_request_seconds", "Time.", registry=registry, buckets=(0.1, 1.0))
        self.depth = Gauge("aig_queue_depth", "Waiting.", registry=registry)
        self.limit = Gauge("aig_budget_limit", "Limit.", registry=registry)
        self.images = Counter("aig_images", "Images.", ["model", "version"], registry=registry)
        for version in versions:
            self.images.labels("small", version)

    def told(self) -> Told:
        """As it arrives."""
        told: Told = json.loads(json.dumps(told_by(self._registry)))
        return told


def _samples(sums: Sums) -> dict[tuple[str, str], float]:
    """By name and the value of the last label, of what is exposed."""

    class _Exposed(Collector):
        def collect(self) -> object:
            return sums.collect()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Exposed())
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, [*sample.labels.values(), ""][0] if "le" in sample.labels else "".join(sample.labels.values())): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def test_counts_are_added_and_gauges_by_their_kind() -> None:
    one, two, sums = _Part("1"), _Part("1"), Sums()
    for part, depth, limit in ((one, 3, 1.0), (two, 4, 0.5)):
        part.requests.labels("ok").inc(depth)
        part.depth.set(depth)
        part.limit.set(limit)
        part.seconds.observe(depth / 10)
    two.requests.labels("overloaded").inc()
    sums.take(0, one.told())
    sums.take(1, two.told())
    told = _samples(sums)
    assert (told["aig_requests_total", "ok"], told["aig_requests_total", "overloaded"]) == (7, 1)
    assert (told["aig_queue_depth", ""], told["aig_budget_limit", ""]) == (7, 0.5)
    assert [told["aig_request_seconds_bucket", bound] for bound in ("0.1", "1.0", "+Inf")] == [0, 2, 2]
    assert told["aig_request_seconds_count", ""] == 2


def test_what_is_told_again_counts_once() -> None:
    part, sums = _Part(), Sums()
    for _ in range(3):
        part.requests.labels("ok").inc()
        sums.take(0, part.told())
    assert _samples(sums)["aig_requests_total", "ok"] == 3


def test_counts_of_one_that_has_ended_are_kept_and_its_gauges_are_not() -> None:
    sums = Sums()
    for lives in range(3):
        part = _Part("1")
        part.requests.labels("ok").inc(5)
        part.seconds.observe(0.01)
        part.depth.set(7)
        sums.take(0, part.told())
        assert _samples(sums)["aig_requests_total", "ok"] == 5 * (lives + 1)
        assert _samples(sums)["aig_queue_depth", ""] == 7
        sums.retire(0)
        told = _samples(sums)
        assert told["aig_requests_total", "ok"] == 5 * (lives + 1)
        assert told["aig_request_seconds_bucket", "0.1"] == lives + 1
        assert ("aig_queue_depth", "") not in told


def test_counts_of_a_model_that_nobody_serves_any_more_go_with_it() -> None:
    sums, ended = Sums(), _Part("1", "2")
    for version in ("1", "2"):
        ended.images.labels("small", version).inc(4)
    sums.take(0, ended.told())
    sums.retire(0)
    assert _samples(sums)["aig_images_total", "small1"] == 4
    sums.take(0, _Part("2").told())
    told = _samples(sums)
    assert ("aig_images_total", "small1") not in told
    assert told["aig_images_total", "small2"] == 4


def test_every_gauge_of_the_service_has_its_rule() -> None:
    gauges = {family.name for family in _registry().collect() if family.type == "gauge"}
    assert gauges == GAUGES.keys()
