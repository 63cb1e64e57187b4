from __future__ import annotations

import math

import numpy as np
import pytest

from models import intervals


def _hits(true: int, count: int) -> np.ndarray:
    return np.arange(count) < true


def test_interval_of_a_share_is_wilsons() -> None:
    # 80 of 100, by hand: centre 0.80 + 0.0384 / 2 over 1.0384, half width 1.96 * sqrt(0.0016 + 0.000096) over 1.0384.
    assert intervals.share(_hits(80, 100)) == pytest.approx((0.8, 0.7111, 0.8666), abs=5e-4)


def test_interval_of_a_share_stays_within_0_and_1() -> None:
    none, every = intervals.share(_hits(0, 10)), intervals.share(_hits(10, 10))
    assert none.low == 0
    assert 0.2 < none.high < 0.35
    assert every.high == 1
    assert 0.65 < every.low < 0.8


def test_interval_of_a_mean_is_two_standard_errors_wide() -> None:
    values = np.array([1.0, 3.0] * 50)  # mean 2, sample variance 100 / 99
    error = math.sqrt(100 / 99 / 100)
    assert intervals.mean(values) == pytest.approx((2, 2 - 1.96 * error, 2 + 1.96 * error))


def test_few_images_give_a_value_without_an_interval() -> None:
    estimate = intervals.mean(np.arange(19.0))
    assert estimate.value == 9
    assert not estimate.has_interval
    assert not estimate.excludes_zero
    assert intervals.mean(np.arange(20.0)).has_interval
    assert math.isnan(intervals.mean(np.zeros(0)).value)


def test_difference_of_means_adds_the_errors_of_both() -> None:
    first, second = np.array([1.0, 3.0] * 50), np.array([0.0, 4.0] * 200)
    gap = intervals.difference(first, second - 1)
    error = math.sqrt(100 / 99 / 100 + 1600 / 399 / 400)
    assert gap == pytest.approx((1, 1 - 1.96 * error, 1 + 1.96 * error))


def test_what_both_networks_answer_alike_leaves_a_paired_difference_narrow() -> None:
    alike = np.arange(1000) < 900
    better = alike.copy()
    better[900:930] = True
    paired = intervals.paired_difference(better, alike)
    assert paired.value == pytest.approx(0.03)
    # By hand: (31 - 1) / 1002 -+ 1.96 * sqrt((32 / 1002 - (30 / 1002) ** 2) / 1002)
    assert (paired.low, paired.high) == pytest.approx((0.01903, 0.04085), abs=1e-4)
    assert paired.excludes_zero
    assert intervals.difference(better.astype(float), alike.astype(float)).low < paired.low


def test_paired_difference_of_equal_answers_is_zero_but_not_certain() -> None:
    same = intervals.paired_difference(_hits(15, 30), _hits(15, 30))
    assert same.value == 0
    assert same.low < 0 < same.high


def test_rank_correlation_shares_the_ranks_of_equal_values() -> None:
    first, second = np.array([1, 2, 2, 3]), np.array([1, 3, 2, 4])
    # Ranks 0, 1.5, 1.5, 3 and 0, 2, 1, 3: covariance 4.5, variances 4.5 and 5.
    assert intervals.rank_correlation(first, second).value == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_rank_correlation_sees_only_the_order(rng: np.random.Generator) -> None:
    values = rng.normal(size=100)
    noisy = values + rng.normal(size=100)
    plain, bent = intervals.rank_correlation(values, noisy), intervals.rank_correlation(np.exp(values), noisy)
    assert plain == pytest.approx(bent)
    assert 0.3 < plain.low < plain.value < plain.high < 0.9
    perfect = intervals.rank_correlation(values, -values)
    assert perfect.value == pytest.approx(-1)
    assert not perfect.has_interval
    assert math.isnan(intervals.rank_correlation(values, np.ones(100)).value)


def test_intervals_cover_the_truth_as_often_as_they_say(rng: np.random.Generator) -> None:
    covered = 0
    for _ in range(1000):
        first = rng.random(200) < 0.9
        second = np.where(rng.random(200) < 0.8, first, rng.random(200) < 0.7)  # differs by 0.2 * (0.9 - 0.7)
        gap = intervals.paired_difference(first, second)
        covered += gap.low <= 0.04 <= gap.high
    assert 930 <= covered <= 975
