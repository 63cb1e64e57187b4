"""The Horizontal Pod Autoscaler of Kubernetes, autoscaling/v2, as its documentation defines it.

https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ (later moved to
docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/): "Algorithm details" and "Configurable scaling behavior".
Where the text leaves rounding open, it is that of `pkg/controller/podautoscaler` in kubernetes/kubernetes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.autoscaling.fleet import Second
from bench.autoscaling.sampled_mean import SampledMean

SYNC_S, TOLERANCE = 15, 0.1
# metrics-server's default resolution; the controller's syncs fall between two of its collections.
_COLLECTED_S, _SYNC_PHASE_S = 15, 7


@dataclass(frozen=True)
class ScalingPolicy:
    """By how much the number of replicas may change within a period: by so many pods, or so many percent."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True)
class ScalingRules:
    """Of one direction. Of several policies the one that allows the most change holds (`selectPolicy: Max`)."""

    policies: tuple[ScalingPolicy, ...]
    stabilization_s: int


SCALE_UP = ScalingRules((ScalingPolicy("Percent", 100, 15), ScalingPolicy("Pods", 4, 15)), stabilization_s=0)
"""The default for more replicas."""
SCALE_DOWN = ScalingRules((ScalingPolicy("Percent", 100, 15),), stabilization_s=300)
"""The default for fewer replicas."""


def replicas_by_utilization(mean: float, target: float, current: int, ready: int) -> int:
    """Replicas desired by the mean of a metric of pods, such as the share of the CPU that each uses.

    Pods that are not ready are set aside, and count as idle where there would be more pods.
    """
    ratio = mean / target
    counted = ready
    if ratio > 1 and current > ready:
        counted = current
        ratio *= ready / current
        if ratio < 1:
            return current
    return current if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * counted)


def replicas_by_total(total: float, target_average: float, current: int) -> int:
    """Replicas desired by an external metric of the kind `AverageValue`: its total is divided by all replicas."""
    ratio = total / (target_average * current)
    return current if abs(ratio - 1) <= TOLERANCE else math.ceil(total / target_average)


class Behavior:
    """What comes of the numbers desired: the stabilization windows, then the policies, then the bounds.

    Args:
        up, down: rules of each direction.
        fewest, most: bounds of the number of replicas.
    """

    def __init__(self, fewest: int, most: int, up: ScalingRules = SCALE_UP, down: ScalingRules = SCALE_DOWN) -> None:
        self._fewest, self._most = fewest, most
        self._up, self._down = up, down
        self._recommendations: list[tuple[float, int]] = []  # when, and how many
        self._changes: list[tuple[float, int]] = []  # when, and how many more

    def apply(self, desired: int, current: int, now_s: float) -> int:
        """Replicas there shall be, where so many are desired and there are `current`."""
        allowed = self._limited(self._stabilized(desired, current, now_s), current, now_s)
        if allowed != current:
            self._changes.append((now_s, allowed - current))
        return allowed

    def _stabilized(self, desired: int, current: int, now_s: float) -> int:
        """As near to the current number as any recommendation of the window was."""
        longest = max(self._up.stabilization_s, self._down.stabilization_s)
        self._recommendations = [(at, each) for at, each in self._recommendations if now_s - at < longest]
        recent = self._recommendations
        least = min([desired, *(each for at, each in recent if now_s - at < self._up.stabilization_s)])
        largest = max([desired, *(each for at, each in recent if now_s - at < self._down.stabilization_s)])
        self._recommendations.append((now_s, desired))
        return min(max(current, least), largest)

    def _limited(self, desired: int, current: int, now_s: float) -> int:
        bounded = min(max(desired, self._fewest), self._most)
        if bounded > current:
            limits = [
                start + each.value if each.kind == "Pods" else math.ceil(start * (100 + each.value) / 100)
                for each, start in self._starts(self._up.policies, current, now_s)
            ]
            return min(bounded, max(current, *limits))
        limits = [
            start - each.value if each.kind == "Pods" else start * (100 - each.value) // 100
            for each, start in self._starts(self._down.policies, current, now_s)
        ]
        return max(bounded, min(current, *limits))

    def _starts(self, policies: Sequence[ScalingPolicy], current: int, now_s: float) -> list[tuple[ScalingPolicy, int]]:
        """Each policy, and how many replicas there were at the start of its period."""
        return [
            (each, current - sum(more for at, more in self._changes if now_s - at < each.period_s)) for each in policies
        ]


class HorizontalPodAutoscaler:
    """Scales by the share of the CPU that the pods use."""

    def __init__(self, target: float, fewest: int, most: int) -> None:
        self._target = target
        self._used = SampledMean(_COLLECTED_S, _COLLECTED_S)
        self._behavior = Behavior(fewest, most)

    def decide(self, second: Second) -> int:
        """How many replicas there shall be after this second."""
        self._used.note(second.now_s, second.busy)
        if self._used.value is None or not is_sync(second.now_s):
            return second.replicas
        desired = replicas_by_utilization(self._used.value, self._target, second.replicas, second.ready)
        return self._behavior.apply(desired, second.replicas, second.now_s)


def is_sync(now_s: int) -> bool:
    """Whether the controller looks at its metrics in this second."""
    return now_s % SYNC_S == _SYNC_PHASE_S
