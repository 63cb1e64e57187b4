from __future__ import annotations

import pytest

from service.access.token_bucket import TokenBucket
from tests.service.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_full_bucket_gives_what_it_holds_and_then_at_its_rate(clock: Clock) -> None:
    bucket = TokenBucket(rate=2, capacity=3, clock=clock)
    for _ in range(3):
        assert bucket.wait_s(1) == 0
        bucket.take(1)
    assert bucket.wait_s(1) == 0.5
    assert bucket.wait_s(2) == 1
    clock.now += 0.5
    assert bucket.wait_s(1) == 0
    assert bucket.wait_s(2) == 0.5


def test_bucket_never_holds_more_than_its_capacity(clock: Clock) -> None:
    bucket = TokenBucket(rate=2, capacity=3, clock=clock)
    clock.now += 1000
    bucket.take(3)
    assert bucket.wait_s(1) == 0.5


def test_overdrawn_bucket_pays_back_first(clock: Clock) -> None:
    bucket = TokenBucket(rate=2, capacity=3, clock=clock)
    bucket.take(13)
    assert bucket.wait_s(1) == 5.5
    clock.now += 5.5
    assert bucket.wait_s(1) == 0


def test_more_than_it_holds_needs_a_full_bucket(clock: Clock) -> None:
    bucket = TokenBucket(rate=2, capacity=3, clock=clock)
    assert bucket.wait_s(100) == 0
    bucket.take(1)
    assert bucket.wait_s(100) == 0.5
