from __future__ import annotations

from collections.abc import Callable

import pytest

from service.http.fair_queue import FairQueue


def _drain(queue: FairQueue[str], cost: Callable[[str], float] = lambda _: 1.0) -> list[str]:
    served: list[str] = []

    def serve(item: str) -> float:
        served.append(item)
        return cost(item)

    while queue:
        queue.serve(serve)
    return served


def _queue(*items: str) -> FairQueue[str]:
    """Items wait in the line of their first letter."""
    queue: FairQueue[str] = FairQueue()
    for item in items:
        queue.push(item[0], item)
    return queue


def test_items_of_one_are_served_in_the_order_in_which_they_came() -> None:
    assert _drain(_queue("a1", "a2", "a3")) == ["a1", "a2", "a3"]


def test_all_are_served_as_often_however_many_items_they_have() -> None:
    assert _drain(_queue("a1", "a2", "a3", "a4", "b1", "b2", "c1")) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_all_are_served_as_much_whatever_their_items_cost() -> None:
    queue = _queue(*(f"a{number}" for number in range(3)), *(f"b{number}" for number in range(30)))
    served = _drain(queue, lambda item: 10.0 if item[0] == "a" else 1.0)
    assert served.index("a1") - served.index("a0") == 11
    assert served.index("a2") - served.index("a1") == 11


def test_who_comes_while_others_are_served_waits_for_one_item_of_each_at_most() -> None:
    queue = _queue(*(f"{who}{number}" for number in range(100) for who in "abc"))
    for _ in range(151):
        queue.serve(lambda _: 1.0)
    queue.push("d", "d0")
    assert "d0" in _drain(queue)[:4]


def test_who_was_idle_has_no_claim_to_more() -> None:
    queue = _queue(*(f"a{number}" for number in range(100)))
    for _ in range(50):
        queue.serve(lambda _: 1.0)
    for number in range(10):
        queue.push("b", f"b{number}")
    assert sum(item[0] == "b" for item in _drain(queue)[:10]) == 5


def test_who_comes_when_all_others_are_served_again_and_again_is_soon_next() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(200):
        queue.push(number, f"a{number}")
    served: list[str] = []

    def serve(item: str) -> float:
        served.append(item)
        if item != "b":
            queue.push(item, item)
        return 0.01 + int(item[1:] or 0) / 1e5

    for _ in range(1000):
        queue.serve(serve)
    queue.push("b", "b")
    while queue and "b" not in served:
        queue.serve(serve)
    assert len(served) < 1000 + 200 / 2


def test_nobody_is_kept_waiting_by_ever_new_ones() -> None:
    queue = _queue("a1", "a2", *(f"{who}1" for who in "bcd"))
    served: list[str] = []

    def serve(item: str) -> float:
        served.append(item)
        return 1.0

    for number in range(100):
        queue.serve(serve)
        queue.push(number, f"new {number}")
    assert "a2" in served[:50]


def test_who_was_served_and_comes_again_at_once_is_behind_those_who_were_not() -> None:
    queue = _queue("a1", "b1", "c1")
    queue.serve(lambda _: 1.0)
    queue.push("a", "a2")
    assert _drain(queue) == ["b1", "c1", "a2"]


def test_item_that_cannot_be_served_keeps_nobody_waiting() -> None:
    queue = _queue("a1", "a2", "b1")

    def fail(_: str) -> float:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        queue.serve(fail)
    assert sorted(_drain(queue)) == ["a2", "b1"]


def test_item_may_wait_again_while_it_is_served() -> None:
    queue = _queue("a1", "b1")
    queue.serve(lambda _: (queue.push("a", "a2"), 1.0)[1])
    assert _drain(queue) == ["b1", "a2"]


def test_little_is_kept_of_those_who_wait_no_longer() -> None:
    queue = _queue("a1")
    for number in range(5000):
        queue.push(number, "once")
        queue.serve(lambda _: 1.0)
    assert len(queue._served) <= 1024
    _drain(queue)
    assert not queue._served
