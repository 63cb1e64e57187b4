"""What clients are told when the service cannot answer as usual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from service.engine.errors import Overloaded
from service.engine.queueing.lane import Lane
from tests.image_files import solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.server import Server, serving


@pytest.fixture
def runtime(echo_runtime: EchoRuntime) -> EchoRuntime:
    """Runs nothing, and only when told to."""
    return echo_runtime


@pytest.fixture
def server(runtime: EchoRuntime) -> Iterator[Server]:
    """One worker that takes one image at a time, and room for two to wait."""
    with serving(runtime, workers=1, max_batch=1, queue_size=2) as server:
        yield server
        runtime.release()  # or stopping would wait


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def _error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["type"]


def _answered(response: httpx.Response) -> str:
    """The most probable class, which is the first for every image but the black one."""
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]["label"]


def _fill(server: Server, runtime: EchoRuntime, clients: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    """One image that runs until the runtime is released, and two that fill the queue."""
    runtime.hold()
    running = clients.submit(server.classify, solid(10))
    runtime.wait_until_running()
    waiting = [clients.submit(server.classify, solid(value)) for value in (20, 30)]
    wait_until(lambda: server.context.engine.queue_depth == 2)
    return [running, *waiting]


def test_full_queue_refuses_at_once_and_says_when_to_come_back(
    server: Server, runtime: EchoRuntime, clients: ThreadPoolExecutor
) -> None:
    accepted = _fill(server, runtime, clients)
    refused = server.classify(solid(40))
    assert _error(refused) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    runtime.release()
    assert [_answered(request.result()) for request in accepted] == ["class 0"] * 3
    assert 40 / 255 not in [pytest.approx(value) for value in runtime.seen]
    assert _answered(server.classify(solid(40))) == "class 0"


@pytest.mark.parametrize(("path", "kind"), [("/classify", "image/png"), ("/classify/batch", "multipart/form-data")])
def test_full_queue_refuses_before_the_body_is_sent(
    server: Server, runtime: EchoRuntime, clients: ThreadPoolExecutor, path: str, kind: str
) -> None:
    asked = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        asked = True
        yield solid(40)

    accepted = _fill(server, runtime, clients)
    refused = server.post(path, content=body(), headers={"content-type": kind, "expect": "100-continue"})
    assert _error(refused) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert not asked
    runtime.release()
    assert [_answered(request.result()) for request in accepted] == ["class 0"] * 3


@pytest.mark.parametrize("form", [True, False])
def test_body_that_does_not_arrive_in_time_is_given_up(runtime: EchoRuntime, form: bool) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' if form else solid(40)
        await asyncio.Event().wait()

    with serving(runtime, deadline_ms=2000) as server:
        kind = "multipart/form-data; boundary=edge" if form else "image/png"
        late = server.post("/classify", content=slow(), headers={"content-type": kind})
        assert _error(late) == (408, "upload_timeout")
        assert _answered(server.classify(solid(30))) == "class 0"


def test_retry_after_is_the_engines_estimate_in_whole_seconds(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Overloaded(12.3)

    monkeypatch.setattr(server.context.engine, "submit", refuse)
    assert server.classify(solid(1)).headers["retry-after"] == "13"
    assert server.classify_batch([solid(1)]).headers["retry-after"] == "13"


def test_batch_with_no_room_at_all_is_refused(
    server: Server, runtime: EchoRuntime, clients: ThreadPoolExecutor
) -> None:
    accepted = _fill(server, runtime, clients)
    refused = server.classify_batch([solid(40), solid(50)])
    assert _error(refused) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    runtime.release()
    assert [_answered(request.result()) for request in accepted] == ["class 0"] * 3


def test_batch_with_room_for_some_answers_those(
    server: Server, runtime: EchoRuntime, clients: ThreadPoolExecutor
) -> None:
    runtime.hold()
    running = clients.submit(server.classify, solid(10))
    runtime.wait_until_running()
    batch = clients.submit(server.classify_batch, [solid(value) for value in (20, 30, 40)])
    wait_until(lambda: server.context.engine.queue_depth == 2)
    runtime.release()
    first, second, third = batch.result().json()["results"]
    assert (first["error"], second["error"], third["answer"]) == (None, None, None)
    assert third["error"]["type"] == "overloaded"
    assert _answered(running.result()) == "class 0"


def test_batch_that_is_let_in_under_overload_is_let_in_as_a_whole(
    server: Server, runtime: EchoRuntime, clients: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "overloaded", True)
    runtime.hold()
    running = clients.submit(server.classify, solid(10))
    runtime.wait_until_running()
    batch = clients.submit(server.classify_batch, [solid(20), solid(30)])
    wait_until(lambda: server.context.engine.queue_depth == 2)  # where one image alone may wait
    assert _error(server.classify(solid(40))) == (429, "overloaded")
    runtime.release()
    assert [result["error"] for result in batch.result().json()["results"]] == [None, None]
    assert _answered(running.result()) == "class 0"


@pytest.mark.parametrize("ways", [("classify", 504), ("classify_batch", 200)])
def test_image_that_is_not_answered_in_time_is_given_up_and_never_run(
    runtime: EchoRuntime, clients: ThreadPoolExecutor, ways: tuple[str, int]
) -> None:
    way, status = ways
    with serving(runtime, workers=1, max_batch=1, deadline_ms=2000) as server:
        runtime.hold()
        running = clients.submit(server.classify, solid(10))
        runtime.wait_until_running()
        late = getattr(server, way)(solid(20) if way == "classify" else [solid(20)])
        assert late.status_code == status
        error = late.json()["error"] if status == 504 else late.json()["results"][0]["error"]
        assert error["type"] == "deadline_exceeded"
        # What runs already cannot be stopped, but its client is not kept waiting either.
        assert _error(running.result()) == (504, "deadline_exceeded")
        runtime.release()
        assert _answered(server.classify(solid(30))) == "class 0"
    assert pytest.approx(20 / 255) not in runtime.seen


def test_image_the_model_fails_on_is_told_and_harms_nobody(server: Server, runtime: EchoRuntime) -> None:
    assert _answered(server.classify(solid(20))) == "class 0"
    runtime.poison = {runtime.seen[-1]}
    assert _error(server.classify(solid(20))) == (500, "inference_failed")
    assert _answered(server.classify(solid(30))) == "class 0"
    results = server.classify_batch([solid(30), solid(20)]).json()["results"]
    assert results[0]["answer"]["predictions"][0]["label"] == "class 0"
    assert results[1]["error"]["type"] == "inference_failed"


def test_stopping_service_takes_nothing_and_is_not_ready(server: Server) -> None:
    assert server.get("/readyz").status_code == 200
    server.wait_for(server.context.engine.crew.stop(drain_s=0))
    assert _error(server.classify(solid(20))) == (503, "stopping")
    assert _error(server.classify_batch([solid(20), solid(30)])) == (503, "stopping")
    assert server.get("/readyz").status_code == 503
    assert server.get("/readyz").json() == {"status": "not ready", "reason": "stopping"}
    assert server.get("/healthz").status_code == 200


def test_unexpected_error_is_told_without_details_and_logged(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(server.context.engine, "submit", fail)
    response = server.classify(solid(20))
    assert _error(response) == (500, "internal_error")
    assert "secret" not in response.text
    assert any("secret" in str(record.exc_info) for record in caplog.records)


def test_stopping_the_application_finishes_what_was_accepted(runtime: EchoRuntime, clients: ThreadPoolExecutor) -> None:
    with serving(runtime, workers=1, max_batch=1) as server:
        accepted = _fill(server, runtime, clients)

        def ask_while_stopping() -> httpx.Response:
            wait_until(lambda: not server.context.engine.ready)
            refused = server.classify(solid(40))
            runtime.release()
            return refused

        asked = clients.submit(ask_while_stopping)
    # Leaving the block has stopped the application.
    assert _error(asked.result()) == (503, "stopping")
    assert [_answered(request.result()) for request in accepted] == ["class 0"] * 3
