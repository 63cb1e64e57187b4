"""Which worker is given which job."""

from __future__ import annotations

import asyncio

import pytest

from service.engine.errors import DeadlineExceeded, EngineStopped, Overloaded
from service.engine.queueing.scheduler import AHEAD_S
from tests.service.engine.queueing.desk import Clock, Desk


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
    clock: Clock, workers: int, max_batch: int, shares: list[int]
) -> None:
    desk = Desk(clock, workers=workers, max_batch=max_batch)
    desk.put("abcdefghij")
    batches = desk.rest()
    assert [len(batch) for batch in batches] == shares
    assert "".join(batches) == "abcdefghij"


def test_idle_worker_is_given_at_once_what_is_submitted(clock: Clock) -> None:
    desk = Desk(clock, idle=True)
    desk.put("a")
    assert desk.given == [["a"]]
    assert len(desk.scheduler) == 0


def test_worker_that_came_last_is_the_first_to_be_given_work(clock: Clock) -> None:
    desk = Desk(clock, workers=3, max_batch=1, idle=True)
    desk.put("ab")
    assert desk.given == [[], ["b"], ["a"]]


def test_worker_that_is_set_aside_is_given_nothing(clock: Clock) -> None:
    desk = Desk(clock, workers=2, idle=True)
    assert desk.scheduler.set_aside(desk.slots[1])
    assert not desk.scheduler.set_aside(desk.slots[1])
    desk.put("a")
    assert desk.given == [["a"], []]
    assert not desk.scheduler.set_aside(desk.slots[0])  # it is busy


def test_worker_that_died_idle_costs_no_job(clock: Clock) -> None:
    desk = Desk(clock, workers=2, idle=True)
    desk.workers[1].is_there = False
    desk.put("a")
    assert desk.given == [["a"], []]


def test_worker_that_is_lost_fails_what_it_ran_and_gives_back_the_rest(clock: Clock) -> None:
    desk = Desk(clock, max_batch=1)
    desk.put("abc")
    desk.scheduler.take_in(desk.slots[0])
    assert desk.given == [["a", "b"]]
    assert [job.image for job in desk.scheduler.take_out(desk.slots[0])] == [b"a"]
    assert desk.rest() == ["b", "c"]
    assert desk.scheduler.take_out(desk.slots[0]) == []


def test_worker_stays_idle_where_all_that_was_queued_is_worthless(clock: Clock) -> None:
    desk = Desk(clock)
    (late,) = desk.put("l", within=5.0)
    (withdrawn,) = desk.put("w")
    withdrawn.withdraw()
    clock.now += 5.0
    desk.scheduler.take_in(desk.slots[0])
    assert isinstance(late.outcomes[0], DeadlineExceeded)
    assert withdrawn.outcomes == []
    desk.put("a")
    assert desk.given == [["a"]]


def test_job_that_is_submitted_while_another_is_told_that_it_is_too_late_finds_the_worker(clock: Clock) -> None:
    desk = Desk(clock)
    (late,) = desk.put("l", within=5.0)
    late.answered = lambda _: desk.put("a") and None
    clock.now += 5.0
    desk.scheduler.take_in(desk.slots[0])
    assert desk.given == [["a"]]


def test_closed_scheduler_takes_nothing_and_hands_out_the_rest(clock: Clock) -> None:
    desk = Desk(clock, max_batch=2)
    desk.put("abc")
    desk.lane.close()
    with pytest.raises(EngineStopped):
        desk.put("d")
    with pytest.raises(EngineStopped):
        desk.lane.require_room()
    assert desk.rest() == ["ab", "c"]


def test_failing_all_fails_both_queues(clock: Clock) -> None:
    desk = Desk(clock)
    jobs = desk.put("aA")
    desk.lane.fail_all(EngineStopped())
    assert [[type(one) for one in job.outcomes] for job in jobs] == [[EngineStopped]] * 2
    assert len(desk.scheduler) == 0


def test_what_follows_one_that_was_accepted_is_refused_only_by_a_full_queue(clock: Clock) -> None:
    desk = Desk(clock, capacity=4, max_batch=1)
    desk.put("abcd")
    with pytest.raises(Overloaded):
        desk.put("e")
    desk.rest()
    desk.put("f")
    with pytest.raises(Overloaded):
        desk.put("g")
    desk.put("hhh", follows=True)
    with pytest.raises(Overloaded):
        desk.put("i", follows=True)


# What workers are given ahead.


def _busy(clock: Clock, each_s: float, queued: str = "", **arguments: int) -> Desk:
    """A worker that takes so long for an image, as is known, and begins with `f` when these are queued."""
    desk = Desk(clock, max_batch=1, **arguments)
    if each_s:
        desk.run("x", each_s)
    desk.put("f" + queued)
    desk.scheduler.take_in(desk.slots[0])
    return desk


def _ahead(desk: Desk) -> str:
    return "".join(desk.workers[0].given).partition("f")[2]


def test_worker_that_is_nearly_done_is_given_what_comes(clock: Clock) -> None:
    desk = _busy(clock, 1.0)
    desk.put("a")
    assert _ahead(desk) == ""
    clock.now += 1.0 - AHEAD_S / 2
    desk.put("b")
    assert _ahead(desk) == "a"
    desk.put("c")
    assert _ahead(desk) == "a"  # that is enough for now


def test_worker_that_was_to_be_done_a_moment_ago_is_nearly_done(clock: Clock) -> None:
    desk = _busy(clock, 1.0)
    clock.now += 1.0 + AHEAD_S / 2
    desk.put("a")
    assert _ahead(desk) == "a"


def test_worker_that_hangs_is_given_nothing(clock: Clock) -> None:
    desk = _busy(clock, 1.0)
    clock.now += 1.0 + 2 * AHEAD_S
    desk.put("ab")
    assert _ahead(desk) == ""


def test_worker_of_which_nobody_knows_how_long_it_takes_is_given_nothing_later(clock: Clock) -> None:
    desk = _busy(clock, 0.0)
    desk.put("a")
    assert _ahead(desk) == ""


def test_worker_is_given_as_much_ahead_as_takes_long_enough(clock: Clock) -> None:
    assert _ahead(_busy(clock, AHEAD_S / 2.5, "abcdefgh")) == "abc"


def test_nothing_is_given_ahead_while_another_worker_is_idle(clock: Clock) -> None:
    desk = _busy(clock, 1.0, workers=2)
    desk.scheduler.take_in(desk.slots[1])
    clock.now += 1.0
    desk.put("a")
    assert (_ahead(desk), desk.workers[1].given) == ("", ["a"])
    desk.put("b")
    assert _ahead(desk) == "b"


def test_busy_worker_that_could_take_more_first_is_given_first(clock: Clock) -> None:
    desk = Desk(clock, workers=3, max_batch=1)
    desk.run("x", 1.0)
    for slot in desk.slots:
        desk.put("f")
        desk.scheduler.take_in(slot)
    clock.now += 1.0
    desk.put("abcd")
    assert [given[-1] for given in desk.given] == ["a", "b", "c"]
    assert len(desk.scheduler) == 1


def test_job_that_is_submitted_while_batches_are_given_ahead_finds_a_worker_that_died(clock: Clock) -> None:
    desk = Desk(clock, workers=2, max_batch=1)
    desk.run("x", 1.0)
    for slot in desk.slots:
        desk.put("f")
        desk.scheduler.take_in(slot)
    (late,) = desk.put("l", within=0.5)
    late.answered = lambda _: desk.put("ab") and None
    desk.workers[1].is_there = False
    clock.now += 1.0
    desk.scheduler.dispatch()
    assert desk.given == [["x", "f", "a"], ["f"]]
    assert len(desk.scheduler) == 1


def test_nothing_is_given_ahead_where_batches_wait_for_company(clock: Clock) -> None:
    desk = Desk(clock, max_batch=2, max_wait_ms=60_000)
    desk.put("abcd")
    desk.scheduler.take_in(desk.slots[0])
    assert desk.given == [["ab"]]


def test_what_is_given_ahead_is_worth_running(clock: Clock) -> None:
    desk = Desk(clock, max_batch=1)
    desk.put("f")
    (late,) = desk.put("l", within=5.0)
    withdrawn, _ = desk.put("wa")
    withdrawn.withdraw()
    clock.now += 5.0
    desk.scheduler.take_in(desk.slots[0])
    assert desk.given == [["f", "a"]]
    assert [type(outcome) for outcome in late.outcomes] == [DeadlineExceeded]


def test_overloaded_worker_is_given_one_batch_ahead_and_no_more(clock: Clock) -> None:
    desk = Desk(clock, capacity=4, max_batch=1)
    desk.run("x", AHEAD_S / 10)
    desk.put("abcd")
    with pytest.raises(Overloaded):
        desk.put("e")
    desk.scheduler.take_in(desk.slots[0])
    assert desk.given == [["x", "a", "b"]]
    assert desk.lane.overloaded
    desk.go_on(desk.slots[0])
    assert desk.given == [["x", "a", "b", "c"]]
    with pytest.raises(Overloaded):  # what was given ahead waits as well
        desk.put("f")


# Dear jobs.


def test_nothing_is_given_ahead_behind_a_dear_job(clock: Clock) -> None:
    desk = Desk(clock, max_batch=1)
    desk.run("x", 0.001)
    desk.put("A")
    clock.now += 11.0
    desk.scheduler.take_in(desk.slots[0])
    desk.put("ab")
    assert desk.given == [["x", "A"]]
    desk.go_on(desk.slots[0], seconds=5.0)
    desk.go_on(desk.slots[0], seconds=0.001)
    clock.now += 0.001 - AHEAD_S / 2  # the others are no slower for it
    desk.put("c")
    assert desk.given == [["x", "A", "a", "b", "c"]]


def test_dear_jobs_have_half_of_the_workers_as_long_as_others_come(clock: Clock) -> None:
    desk = Desk(clock, workers=4, max_batch=1, idle=True)
    desk.put("aABCD")
    assert desk.running == "ABa"
    desk.put("bcd")
    assert desk.running == "ABab"
    desk.end("A")
    assert desk.running == "BCab"
    desk.end("a")
    assert desk.running == "BCbc"


def test_dear_jobs_have_all_workers_where_no_others_come(clock: Clock) -> None:
    desk = Desk(clock, workers=2, max_batch=1, idle=True)
    desk.put("ABC")
    assert desk.running == "AB"
    desk.put("a")
    desk.end("A")
    assert desk.running == "Ba"
    desk.end("a")
    assert desk.running == "B"  # another may come any moment
    desk.put("D")
    clock.now += 11.0
    desk.scheduler.dispatch()
    assert desk.running == "BC"


def test_dear_jobs_may_have_all_workers_where_nobody_waits_for_a_single_answer(clock: Clock) -> None:
    desk = Desk(clock, workers=4, max_batch=1, idle=True)
    desk.scheduler.unhurried = True
    desk.put("aABCDb")
    assert desk.running == "ABCa"
    desk.end("a")
    assert desk.running == "ABCD"


def test_dear_jobs_have_their_turn_where_workers_always_have_something_ahead(clock: Clock) -> None:
    desk = Desk(clock, workers=2, max_batch=1)
    desk.run("x", 1.0)
    desk.put("abcdefgh")
    for slot in desk.slots:
        desk.scheduler.take_in(slot)
    assert [len(slot.batches) for slot in desk.slots] == [2, 2]
    desk.put("AB")
    for _ in range(2):
        desk.go_on(desk.slots[0], seconds=1.0)
    assert desk.running == "Ac"
    assert [len(slot.batches) for slot in desk.slots] == [1, 2]  # who may not run the other has something ahead
    desk.put("ijk")
    desk.go_on(desk.slots[1], seconds=1.0)
    assert len(desk.slots[1].batches) == 2
    desk.end("A")
    assert "B" in desk.running


def test_dear_jobs_leave_the_only_worker_that_is_in_service_to_others_for_as_long(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, workers=2, max_batch=1)
        desk.scheduler.take_in(desk.slots[0])
        desk.put("xAB")
        desk.end("x")
        assert desk.running == "A"
        clock.now += 1.0
        desk.put("a")
        desk.end("A")
        assert desk.running == "a"
        desk.end("a")
        assert desk.running == ""
        desk.scheduler.take_in(desk.slots[1])  # of two dear jobs may have one
        assert desk.running == "B"

    asyncio.run(scenario())


def test_closed_scheduler_lets_dear_jobs_wait_for_nobody_who_could_still_come(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=1, idle=True)
        *_, withdrawn = desk.put("xABC")
        desk.end("x")
        clock.now += 1.0
        desk.end("A")
        assert desk.running == ""
        withdrawn.withdraw()
        desk.lane.close()
        assert desk.running == "B"
        desk.end("B")
        assert (desk.running, len(desk.scheduler)) == ("", 0)

    asyncio.run(scenario())


def test_dear_job_that_was_lost_with_its_worker_makes_room_for_the_next(clock: Clock) -> None:
    desk = Desk(clock, workers=2, max_batch=1, idle=True)
    desk.put("aAB")
    (slot,) = [slot for slot in desk.slots if slot.batches and slot.batches[0][0].dear]
    desk.scheduler.take_out(slot)
    desk.scheduler.take_in(slot)
    assert desk.running == "Ba"


def test_only_worker_has_as_much_time_for_others_as_a_dear_job_took(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=1, idle=True)
        desk.put("xABabcdef")
        desk.end("x")
        assert desk.running == "A"
        clock.now += 1.0
        desk.end("A")
        for cheap in "abcd":
            assert desk.running == cheap
            clock.now += 0.3
            desk.end(cheap)
        while desk.running in "ef":  # they were given ahead
            desk.end(desk.running)
        assert desk.running == "B"

    asyncio.run(scenario())


def test_only_worker_is_kept_free_between_the_jobs_of_a_client_that_asks_again_and_again(clock: Clock) -> None:
    async def scenario() -> None:
        desk = Desk(clock, max_batch=1, idle=True)
        desk.put("xAB")
        desk.end("x")
        clock.now += 0.05
        desk.end("A")
        assert desk.running == ""
        desk.put("a")
        assert desk.running == "a"
        clock.now += 0.01
        desk.end("a")
        assert desk.running == ""
        clock.now += 0.05
        await asyncio.sleep(0.1)  # until the scheduler comes back by itself
        assert desk.running == "B"

    asyncio.run(scenario())
