from __future__ import annotations

import pytest

from service.access.accounts import Account, QuotaExceeded, RateLimited, TooManyAtOnce
from service.access.keys import ApiKey
from service.engine.errors import InferenceFailed, InvalidTensor
from service.engine.job import Answer
from tests.runtimes import echo_manifest
from tests.service.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _account(clock: Clock, spent: list[int] | None = None, **limits: float) -> Account:
    key = ApiKey.model_validate({"name": "alice", "sha256": "0" * 64} | limits)
    return Account(key, lambda macs, _: (spent if spent is not None else []).append(macs), clock)


def _run(account: Account, macs: int) -> None:
    """An image that was run for the account."""
    account.charge(Answer((), (), (), macs, 1, 0.0, 0.0, 0.0), echo_manifest())


def test_account_without_limits_is_never_refused(clock: Clock) -> None:
    account = _account(clock)
    for _ in range(100):
        account.take(1000)
        _run(account, 10**15)
    with account, account:
        account.require()


def test_only_so_many_requests_are_in_progress_at_once(clock: Clock) -> None:
    account = _account(clock, requests_at_once=2)
    with account, account:
        with pytest.raises(TooManyAtOnce, match="2 requests"):
            account.__enter__()
        with pytest.raises(TooManyAtOnce):
            account.__enter__()  # a refusal is no request in progress
    with account:
        pass


def test_request_that_fails_is_over_too(clock: Clock) -> None:
    account = _account(clock, requests_at_once=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), account:
            raise ZeroDivisionError


def test_images_of_a_batch_count_each(clock: Clock) -> None:
    account = _account(clock, images_per_second=2, burst_images=10)
    account.take(4)
    account.take(6)
    with pytest.raises(RateLimited, match="2 images a second") as caught:
        account.take(1)
    assert caught.value.retry_after_s == 0.5
    with pytest.raises(RateLimited):
        account.require()
    clock.now += 0.5
    account.require()
    account.take(1)


def test_refused_batch_uses_nothing(clock: Clock) -> None:
    account = _account(clock, images_per_second=1, burst_images=10)
    account.take(5)
    with pytest.raises(RateLimited):
        account.take(6)
    account.take(5)


def test_burst_is_what_comes_in_a_second_unless_it_is_set(clock: Clock) -> None:
    account = _account(clock, images_per_second=2.5)
    account.take(3)
    with pytest.raises(RateLimited):
        account.require()
    slow = _account(clock, images_per_second=0.1)
    slow.take(1)
    with pytest.raises(RateLimited) as caught:
        slow.require()
    assert caught.value.retry_after_s == pytest.approx(10)


def test_batch_larger_than_the_burst_is_taken_and_paid_for_afterwards(clock: Clock) -> None:
    account = _account(clock, images_per_second=1, burst_images=4)
    account.take(10)
    with pytest.raises(RateLimited) as caught:
        account.require()
    assert caught.value.retry_after_s == 7


def test_quota_counts_the_time_of_decoding_as_it_counts_that_of_running(clock: Clock) -> None:
    spent: list[int] = []
    account = _account(clock, spent, macs_per_window=1000, window_seconds=10)
    # Two images ran in 0.2 s, so each for 0.1 s; this one was decoded for 0.9 s.
    account.charge(Answer((), (), (), 100, 2, 0.9, 0.0, 0.2), echo_manifest())
    assert spent == [100]
    with pytest.raises(QuotaExceeded):
        account.require()
    clock.now += 0.1
    account.require()


def test_quota_counts_what_images_really_cost(clock: Clock) -> None:
    spent: list[int] = []
    account = _account(clock, spent, macs_per_window=1000, window_seconds=10)
    _run(account, 400)
    account.require()
    _run(account, 900)  # it was below its quota before
    with pytest.raises(QuotaExceeded, match="1000 multiply-accumulates in 10 s") as caught:
        account.require()
    assert caught.value.retry_after_s == pytest.approx(3.01)
    with pytest.raises(QuotaExceeded):
        account.take(1)
    clock.now += 3.02
    account.take(1)
    assert spent == [400, 900]


def test_image_that_was_not_run_costs_nothing(clock: Clock) -> None:
    spent: list[int] = []
    account = _account(clock, spent, macs_per_window=1)
    account.charge(ValueError(), echo_manifest())
    account.require()
    assert spent == []


@pytest.mark.parametrize("failure", [InferenceFailed(), InvalidTensor("too large")])
def test_image_on_which_the_network_failed_costs_all_of_it(clock: Clock, failure: Exception) -> None:
    spent: list[int] = []
    account = _account(clock, spent, macs_per_window=2 * echo_manifest().total_macs, window_seconds=10)
    for _ in range(2):
        account.require()
        account.charge(failure, echo_manifest())
    with pytest.raises(QuotaExceeded):
        account.require()
    assert spent == []
