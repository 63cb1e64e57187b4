"""What a worker is given ahead, and when it can do with more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from service.engine.errors import Overloaded
from service.engine.job import Job, PendingRequest
from service.engine.queueing.batcher import Batcher
from service.engine.queueing.dispatcher import Dispatcher
from service.engine.queueing.workload import _AHEAD_S, Workload
from service.engine.runtimes.tuning import BatchPolicy
from tests.service.engine.queueing.queues import Clock

_CAPACITY = 100


class Giver:
    """A worker that takes what it is given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def give(self, jobs: Sequence[Job[str]], /) -> bool:
        self.given += [job.payload for job in jobs]
        return True


class Desk:
    """A workload of one worker that takes an image at a time, and what it hangs on.

    Args:
        each_s: how long an image is known to take; 0 where nobody knows.
    """

    def __init__(self, clock: Clock, each_s: float) -> None:
        self.clock = clock
        policy = BatchPolicy(workers=1, max_batch=1, max_wait_ms=0)
        self.batcher: Batcher[str, Any] = Batcher(_CAPACITY, policy, clock, given_ahead=lambda: self.load.ahead)
        if each_s:
            self.batcher.note_speed(each_s, 1)
        self.dear: Batcher[str, Any] = Batcher(_CAPACITY, policy, clock)
        self.dispatcher = Dispatcher(self.batcher, self.dear, clock)
        self.worker: Any = Giver()
        self.load = Workload(self.worker, self.batcher, self.dispatcher, clock)

    def request(self, payload: str) -> PendingRequest[str, Any]:
        return PendingRequest(payload, self.clock(), self.clock() + 100.0, lambda _: None)

    def put(self, payloads: str) -> None:
        for payload in payloads:
            self.batcher.put(self.request(payload))
            self.dispatcher.hand_out()

    def begin(self) -> None:
        """Have the worker begin with something, while nothing else is queued."""
        self.load.begin([self.request("first")])

    @property
    def given(self) -> list[str]:
        """What it was given beside that."""
        return self.worker.given[1:]  # type: ignore[no-any-return]


def test_worker_that_is_nearly_done_is_given_what_comes(clock: Clock) -> None:
    desk = Desk(clock, each_s=1.0)
    desk.begin()
    desk.put("a")
    assert desk.given == []
    clock.now += 1.0 - _AHEAD_S / 2
    desk.put("b")
    assert desk.given == ["a"]
    desk.put("c")
    assert desk.given == ["a"]  # that is enough for now


def test_worker_that_was_to_be_done_a_moment_ago_is_nearly_done(clock: Clock) -> None:
    desk = Desk(clock, each_s=1.0)
    desk.begin()
    clock.now += 1.0 + _AHEAD_S / 2
    desk.put("a")
    assert desk.given == ["a"]


def test_worker_that_hangs_is_given_nothing(clock: Clock) -> None:
    desk = Desk(clock, each_s=1.0)
    desk.begin()
    clock.now += 1.0 + 2 * _AHEAD_S
    desk.put("ab")
    assert desk.given == []


def test_worker_of_which_nobody_knows_how_long_it_takes_is_given_nothing(clock: Clock) -> None:
    desk = Desk(clock, each_s=0.0)
    desk.begin()
    desk.put("a")
    assert desk.given == []


def test_worker_that_is_done_takes_nothing_ahead(clock: Clock) -> None:
    desk = Desk(clock, each_s=_AHEAD_S)
    desk.begin()
    desk.load.go_on()
    assert not desk.load.takes_more
    desk.put("a")
    assert desk.given == []


def test_worker_is_given_as_much_ahead_as_takes_long_enough(clock: Clock) -> None:
    desk = Desk(clock, each_s=_AHEAD_S / 2.5)
    desk.put("abcdefgh")
    desk.begin()
    assert desk.given == ["a", "b", "c"]


def test_overloaded_worker_that_is_nearly_done_is_given_one_batch_and_no_more(clock: Clock) -> None:
    desk = Desk(clock, each_s=_AHEAD_S / 10)
    desk.put("a" * _CAPACITY)
    with pytest.raises(Overloaded):
        desk.put("a")
    while desk.batcher.take():
        pass
    desk.begin()
    desk.put("b")
    assert desk.given == ["b"]
    with pytest.raises(Overloaded):  # what is ahead waits as well
        desk.put("c")
    desk.load.go_on()
    desk.put("d")
    assert desk.given == ["b", "d"]


def test_nothing_is_given_ahead_behind_a_dear_request(clock: Clock) -> None:
    desk = Desk(clock, 0.001)
    dear = desk.request("dear")
    dear.dear = True
    desk.put("ab")
    desk.load.begin([dear])
    assert desk.worker.given == ["dear"]
    assert not desk.load.takes_more
    desk.load.go_on()
    assert desk.batcher.seconds_each == 0.001  # of the others, which are no slower for it
