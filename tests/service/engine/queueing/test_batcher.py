from __future__ import annotations

import pytest

from service.engine.errors import DeadlineExceeded, EngineStopped, Overloaded
from service.engine.queueing.batcher import Batcher
from service.engine.runtimes.tuning import BatchPolicy
from tests.service.engine.queueing.queues import Clock, MakeBatcher, Put, ahead, put, taken, until_empty


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
    batcher.note_speed(seconds=1.5, requests=1)  # the estimate follows slowly, and each request counts
    with pytest.raises(Overloaded) as caught:
        put(batcher, clock, "g")
    assert caught.value.retry_after_s == pytest.approx(6 * (0.98 * 2.0 + 1.5) / (0.98 * 4 + 1) / 2)


def test_withdrawn_request_is_never_handed_out(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    requests = put(batcher, clock, *"abc")
    requests[1].withdraw()
    assert taken(batcher) == ["a", "c"]


def test_withdrawn_request_does_not_count_as_part_of_a_batch(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2)
    requests = put(batcher, clock, *"abcd")
    requests[0].withdraw()
    requests[1].withdraw()
    assert taken(batcher) == ["c", "d"]


def test_withdrawn_request_holds_no_place_in_the_queue(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(capacity=2)
    requests = put(batcher, clock, "a", "b")
    requests[0].withdraw()
    put(batcher, clock, "c")
    with pytest.raises(Overloaded):
        put(batcher, clock, "d")
    assert list(until_empty(batcher)) == [["b", "c"]]


def test_what_is_withdrawn_in_the_queue_is_held_no_longer(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=1)
    given, queued, both = put(batcher, clock, *"abc")
    assert taken(batcher) == ["a"]
    for request in (given, queued, queued):
        request.withdraw()
    assert [hasattr(request, "payload") for request in (given, queued)] == [True, False]  # a worker may be reading it
    assert taken(batcher) == ["c"]
    both.withdraw()
    batcher.put_back([given, both])
    assert len(batcher) == 0


def test_what_follows_one_that_was_accepted_is_refused_only_by_a_full_queue(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher = make_batcher(capacity=4, workers=1, max_batch=1)
    put(batcher, clock, *"abcd")
    with pytest.raises(Overloaded):
        put(batcher, clock, "e")
    list(until_empty(batcher))
    put(batcher, clock, "f")
    with pytest.raises(Overloaded):
        put(batcher, clock, "g")
    for _ in range(3):
        batcher.put(Put("h", clock(), clock() + 10), follows=True)
    with pytest.raises(Overloaded):
        batcher.put(Put("i", clock(), clock() + 10), follows=True)


def test_queue_takes_no_more_than_can_be_run_before_its_deadlines(clock: Clock) -> None:
    batcher: Batcher[str, str] = Batcher(100, BatchPolicy(2, 1, 0), clock, longest_s=10.0)
    put(batcher, clock, *"abcdefghijklmnopqrstuvwxyz")  # nobody knows how long they take
    list(until_empty(batcher))
    batcher.note_speed(seconds=1.0, requests=1)
    put(batcher, clock, *"abcdefghijklmnop")  # ten seconds of two workers, who may just have begun with two more each
    with pytest.raises(Overloaded):
        put(batcher, clock, "q")
    assert batcher.overload
    list(until_empty(batcher))
    clock.now += 100
    batcher.note_speed(seconds=1000.0, requests=1)
    put(batcher, clock, "a")  # what takes so long for all that is known has its try


def test_expired_request_fails_before_it_costs_anything(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    (late,) = put(batcher, clock, "late", within=5.0)
    (fine,) = put(batcher, clock, "fine", within=5.1)
    clock.now += 5.0
    assert taken(batcher) == ["fine"]
    assert [type(outcome) for outcome in late.outcomes] == [DeadlineExceeded]
    assert fine.outcomes == []


def test_closed_batcher_hands_out_the_rest(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2)
    put(batcher, clock, *"abc")
    batcher.close()
    with pytest.raises(EngineStopped):
        put(batcher, clock, "d")
    assert [taken(batcher) for _ in range(3)] == [["a", "b"], ["c"], []]


def test_dropping_fails_all_that_is_queued(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    requests = put(batcher, clock, *"abc")
    requests[1].withdraw()
    batcher.close()
    batcher.drop_all(EngineStopped())
    assert [[type(one) for one in request.outcomes] for request in requests] == [[EngineStopped], [], [EngineStopped]]
    assert len(batcher) == 0
    assert taken(batcher) == []


def test_nothing_is_handed_out_where_all_that_was_queued_is_worthless(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=1)
    (late,) = put(batcher, clock, "late", within=5.0)
    (withdrawn,) = put(batcher, clock, "withdrawn")
    withdrawn.withdraw()
    clock.now += 5.0
    assert taken(batcher) == []
    assert [type(outcome) for outcome in late.outcomes] == [DeadlineExceeded]
    assert withdrawn.outcomes == []
    put(batcher, clock, "fresh")
    assert taken(batcher) == ["fresh"]


def test_what_is_put_back_is_taken_next(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(capacity=3, max_batch=2)
    put(batcher, clock, *"abc")
    batch = batcher.take()
    put(batcher, clock, "d", "e")
    batcher.put_back(batch)  # though that makes them more than there is room for
    assert list(until_empty(batcher)) == [["a", "b"], ["c", "d"], ["e"]]


def test_what_is_put_back_may_have_expired_or_been_withdrawn_meanwhile(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    (late,) = put(batcher, clock, "late", within=5.0)
    (withdrawn, fine) = put(batcher, clock, "withdrawn", "fine")
    batch = batcher.take()
    clock.now += 5.0
    withdrawn.withdraw()
    batcher.put_back(batch)
    assert taken(batcher) == ["fine"]
    assert [type(outcome) for outcome in late.outcomes] == [DeadlineExceeded]
    assert withdrawn.outcomes == fine.outcomes == []


def test_request_that_is_made_by_the_end_of_another_is_taken_in_its_turn(
    make_batcher: MakeBatcher, clock: Clock
) -> None:
    batcher = make_batcher()
    (late,) = put(batcher, clock, "late", within=5.0)
    late.answered = lambda _: put(batcher, clock, "next") and None
    put(batcher, clock, "fine")
    clock.now += 5.0
    assert list(until_empty(batcher)) == [["fine", "next"]]


def test_busy_worker_takes_its_share_ahead(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(workers=2, max_batch=2)
    put(batcher, clock, *"abcdef")
    assert [ahead(batcher) for _ in range(5)] == [["a", "b"], ["c", "d"], ["e"], ["f"], []]


def test_nothing_is_taken_ahead_where_batches_are_waited_for(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2, max_wait_ms=5)
    put(batcher, clock, *"ab")
    assert ahead(batcher) == []
    assert taken(batcher) == ["a", "b"]


def test_what_is_taken_ahead_is_worth_running(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher(max_batch=2)
    (late,) = put(batcher, clock, "late", within=5.0)
    (withdrawn, fine) = put(batcher, clock, "withdrawn", "fine")
    withdrawn.withdraw()
    clock.now += 5.0
    assert ahead(batcher) == ["fine"]
    assert [type(outcome) for outcome in late.outcomes] == [DeadlineExceeded]
    assert not fine.withdraw()


def test_closed_batcher_gives_the_rest_ahead_too(make_batcher: MakeBatcher, clock: Clock) -> None:
    batcher = make_batcher()
    put(batcher, clock, "a")
    batcher.close()
    assert [ahead(batcher), ahead(batcher)] == [["a"], []]
