from __future__ import annotations

from tests.runtimes import wait_until
from tests.service.engine.queueing import Clock, MakeBatcher, Taking, put, taken


def test_waiting_policy_waits_for_company_until_the_oldest_has_waited_enough(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher = make_batcher(max_batch=4, max_wait_ms=60_000)
    put(batcher, clock, "a", within=100)
    taking = Taking(batcher)
    assert taking.still_waits
    clock.now += 59.9
    put(batcher, clock, "b", within=100)  # wakes the thread, which must see that 0.1 s are left
    assert taking.still_waits
    clock.now += 0.1
    put(batcher, clock, "c", within=100)
    assert taking.result() == ["a", "b", "c"]


def test_waiting_policy_takes_a_full_batch_at_once(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2, max_wait_ms=60_000)
    taking = Taking(batcher)
    put(batcher, clock, "a")
    assert taking.still_waits
    put(batcher, clock, "b")
    assert taking.result() == ["a", "b"]


def test_worker_takes_all_that_was_waited_for_and_leaves_the_other_nothing(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher = make_batcher(workers=2, max_batch=4, max_wait_ms=60_000)
    takings = [Taking(batcher), Taking(batcher)]
    put(batcher, clock, "a", "b", "c")
    assert [taking.still_waits for taking in takings] == [True, True]
    put(batcher, clock, "d")
    wait_until(lambda: any(taking.batches for taking in takings))
    batcher.close()
    results = [taking.result() for taking in takings]
    assert ["a", "b", "c", "d"] in results
    assert None in results


def test_waiting_policy_takes_at_once_what_has_waited_long_enough_already(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher = make_batcher(max_batch=4, max_wait_ms=2)
    put(batcher, clock, "a")
    clock.now += 0.002
    assert taken(batcher) == ["a"]


def test_closing_ends_the_wait_for_company(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=4, max_wait_ms=60_000)
    put(batcher, clock, "a")
    taking = Taking(batcher)
    assert taking.still_waits
    batcher.close()
    assert taking.result() == ["a"]
