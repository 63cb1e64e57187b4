"""The autoscaler of Ray Serve, by the requests that are ongoing: queued and running.

https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html, and for what the text leaves open
`python/ray/serve/autoscaling_policy.py` in ray-project/ray (`_apply_scaling_factors`, `_apply_delay_logic`).
"""

from __future__ import annotations

import math

from bench.autoscaling.fleet import Second
from bench.autoscaling.sampled_mean import SampledMean


def scaled(desired: float, current: int, upscaling_factor: float, downscaling_factor: float) -> int:
    """Replicas after a factor has amplified or moderated the step from the current to the desired number."""
    step = desired - current
    moderated = math.ceil(current + (upscaling_factor if step > 0 else downscaling_factor) * step)
    # A small factor must not keep it from going down at all.
    return moderated - (moderated == current and math.ceil(desired) < current)


class RayServe:
    """Scales by the mean number of ongoing requests, here of every second and not of one in ten.

    That those that wait do so in the service, where they are refused or get less compute, takes `max_ongoing_requests`
    above what the service may have: what is beyond that waits in Ray's own queue.

    Args:
        fewest, most: `min_replicas` and `max_replicas`.

    The others are the fields of `AutoscalingConfig` with their defaults.
    """

    def __init__(
        self,
        fewest: int,
        most: int,
        target_ongoing_requests: float = 2.0,
        upscale_delay_s: float = 30.0,
        downscale_delay_s: float = 600.0,
        upscaling_factor: float = 1.0,
        downscaling_factor: float = 1.0,
        metrics_interval_s: int = 10,
        look_back_period_s: int = 30,
    ) -> None:
        self._fewest, self._most = fewest, most
        self._target = target_ongoing_requests
        self._factors = upscaling_factor, downscaling_factor
        self._delays_s = {1: upscale_delay_s, -1: downscale_delay_s}
        self._ongoing = SampledMean(look_back_period_s, metrics_interval_s)
        self._direction = 0
        self._since_s = 0

    def decide(self, second: Second) -> int:
        """How many replicas there shall be after this second."""
        self._ongoing.note(second.now_s, second.ongoing)
        if self._ongoing.value is None:
            return second.replicas
        desired = scaled(self._ongoing.value / self._target, second.ready, *self._factors)
        return self.delayed(min(max(desired, self._fewest), self._most), second.replicas, second.now_s)

    def delayed(self, desired: int, current: int, now_s: int) -> int:
        """The number desired, once it has been on the same side of the current one for as long as the delay."""
        direction = (desired > current) - (desired < current)
        if direction != self._direction:
            self._direction, self._since_s = direction, now_s
        if not direction or now_s - self._since_s < self._delays_s[direction]:
            return current
        self._direction = 0
        return desired
