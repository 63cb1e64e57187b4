from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.classify.body_budget import BodyBudget
from service.engine.errors import Overloaded
from tests.image_files import solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.server import Server, serving


def test_what_all_requests_hold_together_is_limited() -> None:
    memory = BodyBudget(100)
    with memory.share() as first, memory.share() as second:
        first.take(60)
        second.take(40)
        with pytest.raises(Overloaded):
            second.take(1)
        assert memory.held == 100


def test_what_a_request_held_is_given_back_whatever_became_of_it() -> None:
    memory = BodyBudget(100)
    with memory.share() as share:
        share.take(60)
        with pytest.raises(Overloaded):
            share.take(60)
    assert memory.held == 0
    with memory.share() as share:
        share.take(100)


class Process:
    """A process whose memory the C library keeps until it is told to give it back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.needed = self.resident = 100_000_000
        self.released = 0
        monkeypatch.setattr("service.classify.body_budget.resident_bytes", lambda: self.resident)
        monkeypatch.setattr("service.classify.body_budget.release_memory", self._release)
        monkeypatch.setattr("service.classify.body_budget.gc.collect", lambda: None)
        self._memory = BodyBudget(100)

    def need(self, size: int) -> None:
        self.needed = size
        self.resident = max(self.resident, size)

    def look(self, seconds: int) -> None:
        for _ in range(seconds):
            self._memory.tidy()

    def _release(self) -> None:
        self.resident = self.needed
        self.released += 1


def test_memory_that_was_needed_goes_back_also_where_it_was_looked_for_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = Process(monkeypatch)
    for size in range(100_000_000, 400_000_000, 20_000_000):
        process.need(size)
        process.look(1)
    process.need(100_000_000)
    process.look(10)
    assert process.resident == 100_000_000


def test_memory_that_is_needed_is_looked_for_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    process.look(1)
    process.need(400_000_000)
    process.look(1000)
    assert 2 < process.released < 10
    process.need(100_000_000)
    process.look(260)
    assert process.resident == 100_000_000


def test_memory_that_does_not_grow_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    process.look(1000)
    assert process.released == 0


@pytest.fixture
def server(echo_runtime: EchoRuntime) -> Iterator[Server]:
    """Room for one small image and a half."""
    with serving(echo_runtime, workers=1, max_batch=1, max_pending_bytes=3 * len(solid(10)) // 2) as server:
        yield server
        echo_runtime.release()


def test_body_for_which_there_is_no_memory_is_refused_until_there_is(server: Server, echo_runtime: EchoRuntime) -> None:
    echo_runtime.hold()
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(server.classify, solid(10))
        echo_runtime.wait_until_running()
        refused = server.classify(solid(20))
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        echo_runtime.release()
        assert running.result().status_code == 200
    wait_until(lambda: server.context.memory.held == 0)
    assert server.classify(solid(20)).status_code == 200


def test_body_that_could_never_be_held_is_too_large(server: Server) -> None:
    response = server.classify(solid(10) * 2)
    assert (response.status_code, response.json()["error"]["type"]) == (413, "image_too_large")
