"""Shares, means and their differences with 95% confidence intervals.

Differences between two networks on the same images are paired: what both get right, or both get wrong, says nothing
about which is better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

# Below this, an interval says little and the normal approximation is poor.
FEWEST_IMAGES = 20

_Z = 1.96


class Estimate(NamedTuple):
    """A value and the bounds of its 95% confidence interval; bounds are NaN where too few images were seen."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether there were enough images for bounds."""
        return not math.isnan(self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.has_interval and (self.low > 0 or self.high < 0)


def wilson_interval(successes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the 95% confidence interval of shares (Wilson 1927), which stay within 0 and 1."""
    share, spread = successes / counts, _Z * _Z / counts
    centre = (share + spread / 2) / (1 + spread)
    reach = np.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return np.minimum(centre - reach, share), np.maximum(centre + reach, share)


def share(hits: np.ndarray) -> Estimate:
    """The share of N hits, (N,) bool, that are true, with Wilson's interval, which needs no minimum of images."""
    if not len(hits):
        return Estimate(math.nan)
    low, high = wilson_interval(np.array(hits.sum()), np.array(len(hits)))
    return Estimate(float(hits.mean()), float(low), float(high))


def mean(values: np.ndarray) -> Estimate:
    """The mean of values (N,), with an interval from its standard error."""
    if not len(values):
        return Estimate(math.nan)
    return _around(float(values.mean()), _squared_error(values))


def difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Mean of `first` minus mean of `second`, of different images; their spreads may differ (Welch 1947)."""
    if not len(first) or not len(second):
        return Estimate(math.nan)
    return _around(float(first.mean() - second.mean()), _squared_error(first) + _squared_error(second))


def paired_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Share of hits in `first` minus that in `second`, (N,) bool each, on the same images.

    The interval is that of Bonett & Price (2012), which adds one image to each kind of disagreement and so keeps a
    width where none was seen.
    """
    count = len(first)
    if not count:
        return Estimate(math.nan)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    one, other = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
    reach = _Z * math.sqrt((one + other - (one - other) ** 2) / (count + 2))
    value = (only_first - only_second) / count
    return Estimate(value, max(-1.0, min(value, one - other - reach)), min(1.0, max(value, one - other + reach)))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Spearman's rank correlation of two values of N images, with the interval of Bonett & Wright (2000).

    NaN where one of them is the same for all images.
    """
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Estimate(math.nan)
    value = float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])
    if len(first) < FEWEST_IMAGES or math.isclose(abs(value), 1):  # its interval would have no width
        return Estimate(value)
    reach = _Z * math.sqrt((1 + value * value / 2) / (len(first) - 3))
    return Estimate(value, math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach))


def _around(value: float, squared_error: float) -> Estimate:
    reach = _Z * math.sqrt(squared_error)
    return Estimate(value, value - reach, value + reach)


def _squared_error(values: np.ndarray) -> float:
    """Variance of the mean of values (N,); NaN for too few of them."""
    return float(values.var(ddof=1)) / len(values) if len(values) >= FEWEST_IMAGES else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value, from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]
