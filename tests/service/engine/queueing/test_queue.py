from __future__ import annotations

import math

import pytest

from service.engine.errors import DeadlineExceeded, EngineStopped, Overloaded
from service.engine.queueing.queue import JobQueue
from tests.service.engine.queueing.desk import Clock, Put, names


def _queue(clock: Clock, capacity: int = 100, workers: int = 1, longest_s: float = math.inf) -> JobQueue:
    return JobQueue(capacity, lambda: workers, longest_s, clock)


def _put(queue: JobQueue, clock: Clock, letters: str, within: float = 10.0) -> list[Put]:
    jobs = [Put(letter, clock.now, clock.now + within) for letter in letters]
    for job in jobs:
        queue.put(job)
    return jobs


def test_first_in_is_first_out(clock: Clock) -> None:
    queue = _queue(clock)
    _put(queue, clock, "abcde")
    assert queue.oldest.image == b"a"
    assert [names(queue.take(2)) for _ in range(4)] == ["ab", "cd", "e", ""]


def test_full_queue_has_no_room(clock: Clock) -> None:
    queue = _queue(clock)
    _put(queue, clock, "ab")
    queue.require_room(3)
    with pytest.raises(Overloaded) as caught:
        queue.require_room(2)
    assert caught.value.retry_after_s == 0  # nothing has run yet, so nobody knows
    assert names(queue.take(9)) == "ab"


def test_refusal_estimates_when_there_will_be_room(clock: Clock) -> None:
    queue = _queue(clock, workers=2)
    queue.service_time.note(seconds=2.0, images=4)
    _put(queue, clock, "abcdef")
    with pytest.raises(Overloaded) as caught:
        queue.require_room(6)
    assert caught.value.retry_after_s == pytest.approx(6 * 0.5 / 2)
    queue.service_time.note(seconds=1.5, images=1)  # the estimate follows slowly, and each image counts
    with pytest.raises(Overloaded) as caught:
        queue.require_room(6)
    assert caught.value.retry_after_s == pytest.approx(6 * (0.98 * 2.0 + 1.5) / (0.98 * 4 + 1) / 2)


def test_there_is_room_for_what_can_be_run_before_its_deadline(clock: Clock) -> None:
    queue = _queue(clock, workers=2, longest_s=10.0)
    assert queue.room == 100  # nobody knows how long they take
    queue.service_time.note(seconds=1.0, images=1)
    assert queue.room == 16  # ten seconds of two workers, who may just have begun with two more each
    queue.service_time.note(seconds=1000.0, images=1)
    assert queue.room == 1  # what takes so long for all that is known has its try


def test_withdrawn_job_is_never_taken_and_counts_for_nothing(clock: Clock) -> None:
    queue = _queue(clock)
    jobs = _put(queue, clock, "abcd")
    jobs[0].withdraw()
    assert names(queue.take(2)) == "bc"


def test_withdrawn_jobs_keep_nobody_out(clock: Clock) -> None:
    queue = _queue(clock)
    jobs = _put(queue, clock, "abc")
    jobs[1].withdraw()
    queue.require_room(3)
    assert len(queue) == 2


def test_withdrawn_job_gives_its_image_back_unless_a_worker_has_it(clock: Clock) -> None:
    queue = _queue(clock)
    given, queued, both = _put(queue, clock, "abc")
    assert names(queue.take(1)) == "a"
    for job in (given, queued, queued):
        job.withdraw()
    assert [hasattr(job, "image") for job in (given, queued)] == [True, False]  # a worker may be reading it
    assert names(queue.take(1)) == "c"
    both.withdraw()
    queue.put_back([given, both])
    assert len(queue) == 0


def test_expired_job_fails_before_it_costs_anything(clock: Clock) -> None:
    queue = _queue(clock)
    (late,) = _put(queue, clock, "l", within=5.0)
    (fine,) = _put(queue, clock, "f", within=5.1)
    clock.now += 5.0
    assert names(queue.take(9)) == "f"
    assert [type(outcome) for outcome in late.outcomes] == [DeadlineExceeded]
    assert fine.outcomes == []


def test_failing_all_fails_what_is_queued_and_not_withdrawn(clock: Clock) -> None:
    queue = _queue(clock)
    jobs = _put(queue, clock, "abc")
    jobs[1].withdraw()
    queue.fail_all(EngineStopped())
    assert [[type(one) for one in job.outcomes] for job in jobs] == [[EngineStopped], [], [EngineStopped]]
    assert len(queue) == 0


def test_what_is_put_back_is_taken_next(clock: Clock) -> None:
    queue = _queue(clock, capacity=3)
    _put(queue, clock, "abc")
    taken = queue.take(2)
    _put(queue, clock, "de")
    queue.put_back(taken)  # though that makes them more than there is room for
    assert names(queue.take(9)) == "abcde"


def test_what_is_put_back_may_have_expired_or_been_withdrawn_meanwhile(clock: Clock) -> None:
    queue = _queue(clock)
    (late,) = _put(queue, clock, "l", within=5.0)
    withdrawn, fine = _put(queue, clock, "wf")
    taken = queue.take(3)
    clock.now += 5.0
    withdrawn.withdraw()
    queue.put_back(taken)
    assert names(queue.take(3)) == "f"
    assert [type(outcome) for outcome in late.outcomes] == [DeadlineExceeded]
    assert withdrawn.outcomes == fine.outcomes == []


def test_job_that_is_put_by_the_end_of_another_is_taken_in_its_turn(clock: Clock) -> None:
    queue = _queue(clock)
    (late,) = _put(queue, clock, "l", within=5.0)
    late.answered = lambda _: _put(queue, clock, "n") and None
    _put(queue, clock, "f")
    clock.now += 5.0
    assert names(queue.take(9)) == "fn"
