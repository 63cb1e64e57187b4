"""A day's load: how many images clients send in every second of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_HOUR_S = 3_600
# When the sine is highest, and when and for how long people send at lunch, in hours.
_HIGHEST_H, _LUNCH_H, _LUNCH_WIDTH_H = 16.0, 12.5, 0.25


@dataclass(frozen=True)
class Day:
    """What is asked of the service. The numbers are an example, not measured.

    Attributes:
        mean: images a second, over the sine.
        swing: of the sine, as a share of its mean.
        lunch: what a bell curve around half past twelve adds at its highest, as a share of the mean.
        burst: what the load is multiplied with, from one second to the next.
        burst_at_s, burst_s: when that begins and how long it lasts, in seconds.
        length_s: of what is simulated, from midnight.
    """

    mean: float = 1_000.0
    swing: float = 0.6
    lunch: float = 0.6
    burst: float = 3.0
    burst_at_s: int = 20 * _HOUR_S
    burst_s: int = 600
    length_s: int = 24 * _HOUR_S

    def rates(self, burst: bool = True) -> npt.NDArray[np.float64]:
        """Images a second that are expected in each second, (length_s,); without the burst if told so."""
        hours = np.arange(self.length_s) / _HOUR_S
        sine = 1 + self.swing * np.cos(2 * np.pi * (hours - _HIGHEST_H) / 24)
        lunch = self.lunch * np.exp(-0.5 * ((hours - _LUNCH_H) / _LUNCH_WIDTH_H) ** 2)
        rates: npt.NDArray[np.float64] = self.mean * (sine + lunch)
        if burst:
            rates[self.burst_at_s : self.burst_at_s + self.burst_s] *= self.burst
        return rates

    def arrivals(self, seed: int) -> npt.NDArray[np.int64]:
        """Images that come in each second, (length_s,): Poisson counts, the same for the same seed."""
        return np.random.default_rng(seed).poisson(self.rates())
