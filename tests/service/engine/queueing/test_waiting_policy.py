from __future__ import annotations

import pytest

from tests.service.engine.queueing.queues import Clock, MakeBatcher, put, taken


def test_oldest_request_waits_for_company_for_so_long(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=4, max_wait_ms=60_000)
    put(batcher, clock, "a", within=100)
    assert batcher.wait_s == 60.0
    clock.now += 59.5
    put(batcher, clock, "b", within=100)
    assert batcher.wait_s == 0.5
    clock.now += 0.5
    put(batcher, clock, "c", within=100)
    assert batcher.wait_s == 0.0
    clock.now += 1.0
    assert batcher.wait_s == 0.0
    assert taken(batcher) == ["a", "b", "c"]


def test_full_batch_waits_for_nobody(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2, max_wait_ms=60_000)
    put(batcher, clock, "a", "b", "c", within=100)
    assert batcher.wait_s == 0.0
    assert taken(batcher) == ["a", "b"]
    assert batcher.wait_s == 60.0


def test_as_many_as_there_is_room_for_wait_for_nobody(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(capacity=2, max_batch=8, max_wait_ms=60_000)
    put(batcher, clock, "a", within=100)
    assert batcher.wait_s == 60.0
    put(batcher, clock, "b", within=100)
    assert batcher.wait_s == 0.0


def test_nobody_waits_until_it_is_too_late(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=8, max_wait_ms=60_000)
    batcher.note_speed(seconds=2.0, requests=1)
    put(batcher, clock, "a", within=10)
    assert batcher.wait_s == 8.0


@pytest.mark.parametrize("max_wait_ms", [0, 5])
def test_where_nothing_is_queued_nobody_waits(make_batcher: MakeBatcher, max_wait_ms: float) -> None:
    assert make_batcher(max_wait_ms=max_wait_ms).wait_s == 0.0


def test_without_the_policy_nobody_waits(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2, max_wait_ms=0)
    put(batcher, clock, "a")
    assert batcher.wait_s == 0.0


def test_one_worker_takes_all_that_was_waited_for(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(workers=2, max_batch=4, max_wait_ms=60_000)
    put(batcher, clock, *"abcd")
    assert taken(batcher) == ["a", "b", "c", "d"]


def test_closing_ends_the_wait_for_company(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=4, max_wait_ms=60_000)
    put(batcher, clock, "a")
    batcher.close()
    assert batcher.wait_s == 0.0
