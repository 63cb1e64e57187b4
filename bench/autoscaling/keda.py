"""KEDA with a Prometheus query: it tells a Horizontal Pod Autoscaler a metric, and scales to zero and from it.

https://keda.sh/docs/latest/reference/scaledobject-spec/ ("pollingInterval", "cooldownPeriod"),
https://keda.sh/docs/latest/concepts/scaling-deployments/ ("Caching metrics", "Activating and scaling thresholds").

The controller asks KEDA at each of its syncs, and KEDA asks Prometheus then. The polling interval decides how old the
number may be only with `useCachedMetrics`, and how often KEDA looks whether to leave zero replicas.
"""

from __future__ import annotations

from bench.autoscaling.fleet import Second
from bench.autoscaling.kubernetes import Behavior, is_sync, replicas_by_total
from bench.autoscaling.sampled_mean import SampledMean

POLLING_S, COOLDOWN_S = 30, 300
# `sum(rate(aig_requests_total[1m]))`, of metrics that Prometheus collects every 15 s.
_RATE_S, _SCRAPE_S = 60, 15


class Keda:
    """Scales by the images a second that clients send, refused ones among them.

    Args:
        threshold: images a second for each replica.
        fewest, most: `minReplicaCount` and `maxReplicaCount`.
        cached: `useCachedMetrics`.
    """

    def __init__(self, threshold: float, fewest: int, most: int, cached: bool = False) -> None:
        self._threshold = threshold
        self._fewest = fewest
        self._cached = cached
        self._rate = SampledMean(_RATE_S, _SCRAPE_S)
        self._polled: float | None = None
        self._active_at_s = 0
        self._behavior = Behavior(max(1, fewest), most)

    def decide(self, second: Second) -> int:
        """How many replicas there shall be after this second."""
        self._rate.note(second.now_s, second.arrived)
        if second.now_s % POLLING_S == 0:
            self._polled = self._rate.value
            if self._polled:
                self._active_at_s = second.now_s
            if not self._fewest and (scaled := self._to_or_from_zero(second)) is not None:
                return scaled
        rate = self._polled if self._cached else self._rate.value
        if rate is None or not second.replicas or not is_sync(second.now_s):
            return second.replicas
        desired = replicas_by_total(rate, self._threshold, second.replicas)
        return self._behavior.apply(desired, second.replicas, second.now_s)

    def _to_or_from_zero(self, second: Second) -> int | None:
        """What KEDA does itself: the first replica as soon as there is load, none once there was none for long."""
        if self._polled and not second.replicas:
            return 1
        return 0 if second.now_s - self._active_at_s >= COOLDOWN_S else None
