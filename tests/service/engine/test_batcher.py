from __future__ import annotations

import pytest

from service.engine.errors import DeadlineExceeded, EngineStopped, Overloaded
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.engine.queueing import Clock, MakeBatcher, Taking, ahead, put, taken, until_empty


def test_first_in_is_first_out(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2)
    put(batcher, clock, *"abcde")
    assert list(until_empty(batcher)) == [["a", "b"], ["c", "d"], ["e"]]


def test_what_is_there_is_taken_at_once(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=8, max_wait_ms=0)
    put(batcher, clock, "alone")
    assert taken(batcher) == ["alone"]


@pytest.mark.parametrize(
    ("workers", "max_batch", "shares"),
    [
        (1, 8, [8, 2]),
        (2, 8, [5, 3, 1, 1]),
        (2, 4, [4, 3, 2, 1]),
        (4, 8, [3, 2, 2, 1, 1, 1]),
        (10, 8, [1] * 10),
        (3, 1, [1] * 10),
    ],
)
def test_each_worker_takes_its_share_and_no_more_than_a_batch(
    make_batcher: MakeBatcher, clock: Clock, workers: int, max_batch: int, shares: list[int]
) -> None:
    batcher = make_batcher(workers=workers, max_batch=max_batch)
    put(batcher, clock, *"abcdefghij")
    batches = list(until_empty(batcher))
    assert [len(batch) for batch in batches] == shares
    assert [payload for batch in batches for payload in batch] == list("abcdefghij")


def test_full_queue_refuses_at_once(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(capacity=2)
    put(batcher, clock, "a", "b")
    with pytest.raises(Overloaded) as caught:
        put(batcher, clock, "c")
    assert caught.value.retry_after_s == 0  # nothing has run yet, so nobody knows
    assert list(until_empty(batcher)) == [["a", "b"]]
    put(batcher, clock, "d")
    assert taken(batcher) == ["d"]


def test_refusal_estimates_when_there_will_be_room(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(capacity=6, workers=2)
    batcher.note_speed(seconds=2.0, requests=4)
    put(batcher, clock, *"abcdef")
    with pytest.raises(Overloaded) as caught:
        put(batcher, clock, "g")
    assert caught.value.retry_after_s == pytest.approx(6 * 0.5 / 2)
    batcher.note_speed(seconds=1.5, requests=1)  # the estimate follows slowly
    with pytest.raises(Overloaded) as caught:
        put(batcher, clock, "g")
    assert caught.value.retry_after_s == pytest.approx(6 * (0.9 * 0.5 + 0.1 * 1.5) / 2)


def test_withdrawn_request_is_never_handed_out(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    requests = put(batcher, clock, *"abc")
    assert requests[1].future.cancel()
    assert taken(batcher) == ["a", "c"]


def test_withdrawn_request_does_not_count_as_part_of_a_batch(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2)
    requests = put(batcher, clock, *"abcd")
    requests[0].future.cancel()
    requests[1].future.cancel()
    assert taken(batcher) == ["c", "d"]


def test_withdrawn_request_holds_no_place_in_the_queue(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(capacity=2)
    requests = put(batcher, clock, "a", "b")
    requests[0].future.cancel()
    put(batcher, clock, "c")
    with pytest.raises(Overloaded):
        put(batcher, clock, "d")
    assert list(until_empty(batcher)) == [["b", "c"]]


def test_request_handed_out_can_no_longer_be_withdrawn(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    (request,) = put(batcher, clock, "a")
    batcher.take()
    assert not request.future.cancel()


def test_expired_request_fails_before_it_costs_anything(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    (late,) = put(batcher, clock, "late", within=5.0)
    (fine,) = put(batcher, clock, "fine", within=5.1)
    clock.now += 5.0
    assert taken(batcher) == ["fine"]
    assert isinstance(late.future.exception(timeout=0), DeadlineExceeded)
    assert not fine.future.done()


def test_take_waits_on_when_all_that_was_queued_is_worthless(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    (late,) = put(batcher, clock, "late", within=5.0)
    (withdrawn,) = put(batcher, clock, "withdrawn")
    withdrawn.future.cancel()
    clock.now += 5.0
    taking = Taking(batcher)
    assert taking.still_waits
    assert isinstance(late.future.exception(timeout=PATIENCE_S), DeadlineExceeded)
    put(batcher, clock, "fresh")
    assert taking.result() == ["fresh"]


def test_take_waits_for_a_request(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    taking = Taking(batcher)
    assert taking.still_waits
    put(batcher, clock, "a")
    assert taking.result() == ["a"]


def test_closed_batcher_hands_out_the_rest_and_then_none(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2)
    put(batcher, clock, *"abc")
    batcher.close()
    with pytest.raises(EngineStopped):
        put(batcher, clock, "d")
    assert [taken(batcher) for _ in range(4)] == [["a", "b"], ["c"], None, None]


def test_closing_wakes_every_worker(make_batcher: MakeBatcher) -> None:
    batcher = make_batcher(workers=3)
    takings = [Taking(batcher) for _ in range(3)]
    assert all(taking.still_waits for taking in takings)
    batcher.close()
    assert [taking.result() for taking in takings] == [None] * 3


def test_dropping_fails_all_that_is_queued(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    requests = put(batcher, clock, *"abc")
    requests[1].future.cancel()
    batcher.close()
    batcher.drop_all()
    assert isinstance(requests[0].future.exception(timeout=0), EngineStopped)
    assert requests[1].future.cancelled()
    assert isinstance(requests[2].future.exception(timeout=0), EngineStopped)
    assert len(batcher) == 0
    assert taken(batcher) is None


def test_busy_worker_takes_its_share_ahead(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(workers=2, max_batch=2)
    put(batcher, clock, *"abcdef")
    assert [ahead(batcher) for _ in range(5)] == [["a", "b"], ["c", "d"], ["e"], ["f"], []]


def test_nothing_is_taken_ahead_while_another_is_idle(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(workers=2)
    taking = Taking(batcher)
    wait_until(lambda: len(batcher._idle) == 1)
    with batcher._lock:  # which the other needs to go on, now that it is woken
        put(batcher, clock, "a")
        assert ahead(batcher) == []
    assert taking.result() == ["a"]
    put(batcher, clock, "b")
    assert ahead(batcher) == ["b"]


def test_nothing_is_taken_ahead_where_batches_are_waited_for(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2, max_wait_ms=5)
    put(batcher, clock, *"ab")
    assert ahead(batcher) == []
    assert taken(batcher) == ["a", "b"]


def test_what_is_taken_ahead_is_claimed(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2)
    (late,) = put(batcher, clock, "late", within=5.0)
    (withdrawn, fine) = put(batcher, clock, "withdrawn", "fine")
    withdrawn.future.cancel()
    clock.now += 5.0
    assert ahead(batcher) == ["fine"]
    assert isinstance(late.future.exception(timeout=0), DeadlineExceeded)
    assert not fine.future.cancel()


def test_closed_batcher_hands_out_the_rest_ahead_too(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    put(batcher, clock, "a")
    batcher.close()
    assert [ahead(batcher), ahead(batcher)] == [["a"], []]
    assert taken(batcher) is None
