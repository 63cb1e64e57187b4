"""The service's metrics for Ray's agents, one on each node, so that all replicas of the ingress can be scraped."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from ray.util.metrics import Gauge

_OWN = "aig_"


class RayMetrics:
    """Tells the agent of this node what a registry says.

    Everything is a gauge to Ray, counters and the buckets of histograms too: they are counted already. Prometheus does
    not mind. An agent puts `ray_` before every name.

    Args:
        registry: of the service.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}

    def tell(self) -> None:
        """Tell it what the metrics of the service are now."""
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name.startswith(_OWN):
                    gauge = self._gauges.get(sample.name)
                    if gauge is None:
                        gauge = Gauge(sample.name, family.documentation, tuple(sample.labels))
                        self._gauges[sample.name] = gauge
                    gauge.set(sample.value, sample.labels)
