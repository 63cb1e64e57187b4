"""When a request is tried again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from convnet_aig_client.attempts import Attempts


def attempts(timeout_s: float = 30, most: int = 5, now: Callable[[], float] = lambda: 0.0) -> Attempts:
    return Attempts(timeout_s, most, now, chance=lambda: 1.0)


def test_pauses_double_and_end_with_the_attempts() -> None:
    tried = attempts()
    assert [tried.pause_after("overloaded") for _ in range(5)] == [0.1, 0.2, 0.4, 0.8, None]


def test_no_pause_is_longer_than_five_seconds() -> None:
    tried = attempts(timeout_s=1000, most=50)
    assert max(tried.pause_after("overloaded") or 0 for _ in range(40)) == 5


def test_pause_is_never_shorter_than_the_service_asks_for() -> None:
    tried = Attempts(30, 5, lambda: 0.0, chance=lambda: 0.0)
    assert tried.pause_after("overloaded", retry_after_s=3) == 3


def test_pause_beyond_the_deadline_ends_the_attempts_at_once() -> None:
    assert attempts(timeout_s=2).pause_after("quota_exceeded", retry_after_s=2) is None


def test_time_that_has_passed_counts() -> None:
    times = iter([0.0, 1.95])
    assert attempts(timeout_s=2, now=lambda: next(times)).pause_after("overloaded") is None


@pytest.mark.parametrize("failure", ["worker_lost", "connection_lost"])
def test_what_the_request_may_have_caused_is_tried_again_once(failure: str) -> None:
    tried = attempts()
    assert tried.pause_after(failure) is not None
    assert tried.pause_after(failure) is None


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_timeout_that_is_no_time_is_refused(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        attempts(timeout_s)
