"""The Prometheus metrics of a server: its own, of requests and workers, and those of every model it serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.observability.model_metrics import SECONDS, ModelMetrics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _OfModels(Collector):
    """The metrics of every model, each with the labels `model` and `version`. A model that goes takes its own along."""

    def __init__(self) -> None:
        self.models: dict[tuple[str, str], ModelMetrics] = {}  # by name and version

    def collect(self) -> Iterator[Metric]:
        """Families of the same name are one, whatever the model."""
        families: dict[str, Metric] = {}
        for (name, version), metrics in [*self.models.items()]:
            labels = {"model": name, "version": version}
            for family in metrics.registry.collect():
                told = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                told.samples += [sample._replace(labels=labels | sample.labels) for sample in family.samples]
        yield from families.values()


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        # It would add a second series beside every counter, which nobody plots. (The library has no annotation.)
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "aig_requests", "Requests by route and outcome.", ["route", "outcome"], registry=registry
        )
        self.request_seconds = Histogram(
            "aig_request_seconds",
            "From a request's head to its answer.",
            ["route"],
            registry=registry,
            buckets=SECONDS,
        )
        self.worker_restarts = Counter(
            "aig_worker_restarts", "Workers that were lost and started again.", ["reason"], registry=registry
        )
        for reason in ("died", "stuck"):
            self.worker_restarts.labels(reason)
        self.ready = Gauge("aig_ready", "1 while the service takes requests.", registry=registry)
        self._models = _OfModels()
        registry.register(self._models)
        # Made once each: to look a label up takes longer than to count.
        self._request_counters: dict[tuple[str, str], Counter] = {}
        self._request_seconds: dict[str, Histogram] = {}

    def show(self, metrics: ModelMetrics) -> None:
        """Show the metrics of a model from now on, in the place of those of what had its name and version before."""
        self._models.models[metrics.manifest.name, metrics.manifest.version] = metrics

    def hide(self, metrics: ModelMetrics) -> None:
        """Show no more of a model."""
        name, version = metrics.manifest.name, metrics.manifest.version
        if self._models.models.get((name, version)) is metrics:
            del self._models.models[name, version]

    def start_at_zero(self, routes: Sequence[str], outcomes: Sequence[str]) -> None:
        """Show the counters of outcomes before the first of them: a rate does not see a counter's first value."""
        for outcome in outcomes:
            for route in routes:
                self.requests.labels(route, outcome)

    def count_lost_worker(self, reason: str) -> None:
        """Count a worker that was lost; `reason` is "died" or "stuck"."""
        self.worker_restarts.labels(reason).inc()

    def count_request(self, route: str, outcome: str, seconds: float) -> None:
        """Count a request that was answered, or whose client left."""
        counter = self._request_counters.get((route, outcome))
        if counter is None:
            counter = self._request_counters[route, outcome] = self.requests.labels(route, outcome)
        counter.inc()
        histogram = self._request_seconds.get(route)
        if histogram is None:
            histogram = self._request_seconds[route] = self.request_seconds.labels(route)
        histogram.observe(seconds)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)
