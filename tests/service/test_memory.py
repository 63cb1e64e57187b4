from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.engine.errors import Overloaded
from service.memory import BodyMemory
from tests.image_files import solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.server import Server, serving


def test_what_all_requests_hold_together_is_limited() -> None:
    memory = BodyMemory(100)
    with memory.share() as first, memory.share() as second:
        first.take(60)
        second.take(40)
        with pytest.raises(Overloaded):
            second.take(1)
        assert memory.held == 100


def test_what_a_request_held_is_given_back_whatever_became_of_it() -> None:
    memory = BodyMemory(100)
    with memory.share() as share:
        share.take(60)
        with pytest.raises(Overloaded):
            share.take(60)
    assert memory.held == 0
    with memory.share() as share:
        share.take(100)


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
