"""What meets the day: three services, and those who scale them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bench.autoscaling.fleet import Replica
from bench.autoscaling.keda import Keda
from bench.autoscaling.kubernetes import HorizontalPodAutoscaler
from bench.autoscaling.ray_serve import RayServe
from bench.autoscaling.simulation import Autoscaler, Fixed
from bench.capacity import CORES_MEASURED, TIMES, UNGATED_TIME, core_ms

NO_GATES, SKIPPING, DEGRADING = "no gates", "skipping", "skipping more under load"
FIXED, HPA, KEDA, KEDA_CACHED, KEDA_HIGH = (
    "fixed",
    "HPA, CPU",
    "KEDA, load",
    "KEDA, load, cached",
    "KEDA, load, aim 90%",
)
RAY, RAY_LOW = "Ray Serve, 2 ongoing", "Ray Serve, 1.4 ongoing"
TARGET = 0.7
"""Share of their time that workers are meant to be busy."""
# Shares of the gates open: what clients ask for, and what the service may go down to.
_OPEN = (0.6, 0.55, 0.5, 0.45, 0.4)
_HIGH_TARGET = 0.9
_FEWEST, _MOST = 2, 500


def services(start_s: float) -> dict[str, Replica]:
    """Each service's replica, by name: on two cores, with the rates that `bench.capacity` derives from the records."""
    shares, times = zip(*sorted(TIMES["fp32"].items()), strict=True)
    rates = tuple(_rate(float(np.interp(share, shares, times))) for share in _OPEN)
    return {
        NO_GATES: Replica((_rate(UNGATED_TIME),), CORES_MEASURED, start_s),
        SKIPPING: Replica(rates[:1], CORES_MEASURED, start_s),
        DEGRADING: Replica(rates, CORES_MEASURED, start_s),
    }


def autoscalers(replica: Replica) -> Mapping[str, Callable[[], Autoscaler]]:
    """What makes each, by name, for a service of such replicas."""
    rate = replica.rates[0]
    return {
        FIXED: Fixed,
        HPA: lambda: HorizontalPodAutoscaler(TARGET, _FEWEST, _MOST),
        KEDA: lambda: Keda(TARGET * rate, _FEWEST, _MOST),
        KEDA_CACHED: lambda: Keda(TARGET * rate, _FEWEST, _MOST, cached=True),
        KEDA_HIGH: lambda: Keda(_HIGH_TARGET * rate, _FEWEST, _MOST),
        RAY: lambda: RayServe(_FEWEST, _MOST),
        RAY_LOW: lambda: RayServe(_FEWEST, _MOST, TARGET * replica.workers),
    }


def _rate(time: float) -> float:
    """Images a second of a replica for which an image takes this relative time."""
    return 1_000 * CORES_MEASURED / core_ms(time)
