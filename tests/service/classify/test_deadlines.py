from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.app import create_app
from service.settings import Settings
from tests.image_files import solid
from tests.runtimes import EchoRuntime
from tests.service.connection import Connection
from tests.service.server import Server, pool, serving


@pytest.fixture
def runtime(echo_runtime: EchoRuntime) -> EchoRuntime:
    """Runs nothing, and only when told to."""
    return echo_runtime


@pytest.fixture
def server(runtime: EchoRuntime) -> Iterator[Server]:
    """One worker; the service itself would wait for half a minute."""
    with serving(runtime, workers=1, max_batch=1, deadline_ms=30_000) as server:
        yield server
        runtime.release()


def _post(server: Server, timeout_ms: str, path: str = "/classify") -> tuple[int, str | None]:
    files = {"file": ("a.png", solid(20))} if path == "/classify" else [("files", ("a.png", solid(20)))]
    response = server.post(path, files=files, headers={"X-Request-Timeout-Ms": timeout_ms})
    return response.status_code, response.json().get("error", {}).get("type")


def test_request_is_given_up_after_the_time_its_client_allows(server: Server, runtime: EchoRuntime) -> None:
    runtime.hold()
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(server.classify, solid(10))
        runtime.wait_until_running()
        assert _post(server, "50") == (504, "deadline_exceeded")
        runtime.release()
        assert running.result().status_code == 200
    assert 20 / 255 not in [pytest.approx(value) for value in runtime.seen]


def test_request_that_is_answered_in_time_is_answered_as_ever(server: Server) -> None:
    assert _post(server, "20000.5") == (200, None)


def test_client_cannot_ask_for_more_than_the_service_allows(runtime: EchoRuntime) -> None:
    with serving(runtime, workers=1, max_batch=1, deadline_ms=2000) as server, ThreadPoolExecutor(1) as clients:
        runtime.hold()
        running = clients.submit(server.classify, solid(10))
        runtime.wait_until_running()
        assert _post(server, "20000") == (504, "deadline_exceeded")
        runtime.release()
        running.result()


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
@pytest.mark.parametrize("nonsense", ["0", "-1", "soon", "nan", "inf", "", "1e999"])
def test_timeout_that_is_no_time_is_refused(server: Server, path: str, nonsense: str) -> None:
    assert _post(server, nonsense, path) == (422, "invalid_parameter")


def test_body_that_was_all_there_when_the_time_was_over_was_not_answered_in_time(runtime: EchoRuntime) -> None:
    settings = Settings(workers=1, max_batch=1, max_wait_ms=0)
    app = create_app(settings, pool(runtime, settings))

    async def scenario() -> list[int]:
        async with app.running():
            request = Connection(app, "/classify", "image/png", "POST", (b"x-request-timeout-ms", b"0.001"))
            request.send_body(bytes(300_000))  # which is taken in several steps
            await request.finished()
        return [message["status"] for message in request.sent if "status" in message]

    assert asyncio.run(scenario()) == [504]
