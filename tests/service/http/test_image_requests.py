from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from service.engine.errors import InferenceFailed, WorkerLost
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.workers.local import LocalWorker
from service.observability.record import current_record
from tests.image_files import encoded, photograph, pngs, solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.http_server import RunningServer, ask, form, http_serving, part, post, read_answer

pytestmark = pytest.mark.slow

PNG = pngs(1)[0]
LIMITS = {"max_bytes": 8000, "max_pixels": 10_000}


@pytest.fixture(scope="module")
def server(runtime: OnnxRuntime) -> Iterator[RunningServer]:
    with http_serving(runtime, **LIMITS) as server:
        yield server


@pytest.fixture
def echo(echo_runtime: EchoRuntime) -> Iterator[RunningServer]:
    """One worker that can be held up, and room for two images to wait."""
    with http_serving(echo_runtime, queue_size=2) as server:
        yield server
        echo_runtime.release()


def test_line_of_the_log_names_the_request_it_tells_of(runtime: OnnxRuntime, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service.observability.access_log")
    named = []
    watching = logging.Filter()
    watching.filter = lambda _: named.append(current_record.get()) or True  # type: ignore[method-assign, func-returns-value]
    caplog.handler.addFilter(watching)
    with http_serving(runtime, access_log="on", **LIMITS) as server:
        for request in (post(PNG, "X-Request-ID: mine"), post(b"text")):
            answer = ask(server, request)
            wait_until(lambda: bool(named))
            (record,) = named
            assert record is not None
            assert record.request_id == answer.headers["x-request-id"]
            named.clear()
    caplog.handler.removeFilter(watching)


def test_image_that_comes_byte_by_byte_is_classified(server: RunningServer) -> None:
    request = form(part(PNG))
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request), 7):
            connection.sendall(request[start : start + 7])
        assert read_answer(connection).status == 200
        connection.sendall(post(PNG))
        assert read_answer(connection).status == 200
    assert server.context.memory.held == 0


def test_large_image_is_received_whole(runtime: OnnxRuntime) -> None:
    with http_serving(runtime) as server:
        large = encoded(photograph(1000, 1000), "BMP")
        assert ask(server, post(large)).status == 200
        assert ask(server, form(part(large))).status == 200


def test_connection_that_stays_open_keeps_no_image(server: RunningServer) -> None:
    with server.connect() as connection:
        for request, status in ((post(PNG), 200), (post(b"text"), 415)):
            connection.sendall(request)
            assert read_answer(connection).status == status
            wait_until(lambda: server.context.memory.held == 0)
            connections = server.server.uvicorn.server_state.connections
            bodies = [open_.cycle.body for open_ in connections if open_.cycle]  # type: ignore[union-attr]
            assert bodies
            assert not any(bodies)


def test_requests_sent_in_one_go_are_answered_in_their_order(server: RunningServer) -> None:
    asked = [1, 3, 2, 4, 1]
    with server.connect() as connection:
        connection.sendall(b"".join(post(PNG, target=f"/classify?top_k={top_k}") for top_k in asked))
        answers = [read_answer(connection) for _ in asked]
    assert [len(answer.body["predictions"]) for answer in answers] == asked


def test_client_that_leaves_while_waiting_withdraws_its_image(echo: RunningServer, echo_runtime: EchoRuntime) -> None:
    echo_runtime.hold()
    with echo.connect() as running, echo.connect() as staying:
        running.sendall(post(solid(10)))
        echo_runtime.wait_until_running()
        with echo.connect() as leaving:
            leaving.sendall(post(solid(20)))
            wait_until(lambda: echo.context.engine.queue_depth == 1)
        wait_until(lambda: echo.requests("client_gone") == 1)
        assert echo.images("client_gone") == 1
        staying.sendall(post(solid(30)))
        wait_until(lambda: echo.context.engine.queue_depth == 2)
        echo_runtime.release()
        assert read_answer(running).status == read_answer(staying).status == 200
    assert [round(value * 255) for value in echo_runtime.seen] == [0, 10, 30]
    assert echo.context.memory.held == 0


def test_client_that_leaves_in_the_middle_of_its_body_is_forgotten(echo: RunningServer) -> None:
    with echo.connect() as leaving:
        leaving.sendall(post(solid(20))[:-5])
        wait_until(lambda: echo.context.memory.held > 0)
    wait_until(lambda: echo.requests("client_gone") == 1)
    assert echo.images("client_gone") == 0
    assert echo.context.memory.held == 0


def test_image_is_given_up_at_its_deadline_and_never_run(echo: RunningServer, echo_runtime: EchoRuntime) -> None:
    echo_runtime.hold()
    with echo.connect() as running:
        running.sendall(post(solid(10)))
        echo_runtime.wait_until_running()
        late = ask(echo, post(solid(20), "X-Request-Timeout-Ms: 50"))
        assert (late.status, late.body["error"]["type"]) == (504, "deadline_exceeded")
        echo_runtime.release()
        assert read_answer(running).status == 200
    assert ask(echo, post(solid(30))).status == 200
    assert [round(value * 255) for value in echo_runtime.seen] == [0, 10, 30]
    assert echo.images("deadline_exceeded") == 1


def test_body_that_does_not_come_in_time_is_given_up(echo: RunningServer) -> None:
    with echo.connect() as connection:
        request = post(solid(20), "X-Request-Timeout-Ms: 50")
        connection.sendall(request[:-5])
        answer = read_answer(connection)
        assert (answer.status, answer.body["error"]["type"]) == (408, "upload_timeout")
        assert answer.headers["connection"] == "close"
        connection.sendall(request[-5:] + post(solid(30)))  # which is not taken for a request
        assert connection.recv(1) == b""
    assert (echo.requests("upload_timeout"), echo.images("upload_timeout")) == (1, 0)


def test_full_queue_refuses_and_bodies_are_not_held(echo: RunningServer, echo_runtime: EchoRuntime) -> None:
    echo_runtime.hold()
    with echo.connect() as running, echo.connect() as second, echo.connect() as third:
        running.sendall(post(solid(10)))
        echo_runtime.wait_until_running()
        for connection in (second, third):
            connection.sendall(post(solid(20)))
        wait_until(lambda: echo.context.engine.queue_depth == 2)
        refused = ask(echo, post(solid(40)))
        assert (refused.status, refused.body["error"]["type"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert "date" in refused.headers
        echo_runtime.release()
        assert [read_answer(connection).status for connection in (running, second, third)] == [200] * 3
    assert (echo.requests("overloaded"), echo.images("overloaded")) == (1, 1)


def test_body_for_which_there_is_no_memory_is_refused(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime, max_pending_bytes=3 * len(solid(10)) // 2) as server:
        echo_runtime.hold()
        with server.connect() as running:
            running.sendall(post(solid(10)))
            echo_runtime.wait_until_running()
            refused = ask(server, post(solid(20)))
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            echo_runtime.release()
            assert read_answer(running).status == 200
        assert ask(server, post(solid(30))).status == 200
        assert server.context.memory.held == 0


def _raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_unexpected_error_is_told_without_details_and_logged_with_its_request(
    echo: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(echo.context.engine, "submit", _raising(KeyError("a secret")))
    answer = ask(echo, post(solid(20)))
    assert (answer.status, answer.body["error"]["type"]) == (500, "internal_error")
    assert "secret" not in str(answer.body)
    assert any("secret" in str(record.exc_info) for record in caplog.records)
    monkeypatch.undo()
    assert ask(echo, post(solid(20))).status == 200


@pytest.mark.parametrize(("error", "status"), [(WorkerLost("died"), 503), (InferenceFailed(), 500)])
def test_failure_of_the_engine_is_told(
    echo: RunningServer, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    monkeypatch.setattr(LocalWorker, "work", _raising(error))
    assert ask(echo, post(solid(20))).status == status


def test_stop_waits_for_what_was_accepted(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime) as server:
        echo_runtime.hold()
        with server.connect() as running, server.connect() as waiting, server.connect() as idle:
            idle.sendall(post(solid(1))[:10])
            running.sendall(post(solid(10)))
            echo_runtime.wait_until_running()
            waiting.sendall(post(solid(20)))
            wait_until(lambda: server.context.engine.queue_depth == 1)
            server.stop()
            time.sleep(0.3)
            assert server.thread.is_alive()
            echo_runtime.release()
            for connection in (running, waiting):
                answer = read_answer(connection)
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert connection.recv(1) == b""


def test_what_is_not_finished_when_the_server_waits_no_longer_is_told_so(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime, drain_seconds=1) as server:
        echo_runtime.hold()
        with server.connect() as running, server.connect() as waiting, server.connect() as sending:
            running.sendall(post(solid(10)))
            echo_runtime.wait_until_running()
            waiting.sendall(post(solid(20)))
            sending.sendall(post(solid(30))[:-5])
            wait_until(lambda: server.context.engine.queue_depth == 1)
            server.stop()
            for connection in (running, waiting, sending):
                answer = read_answer(connection)
                assert (answer.status, answer.body["error"]["type"]) == (503, "stopping")
            echo_runtime.release()
    assert (server.requests("stopping"), server.images("stopping")) == (3, 3)
    assert [round(value * 255) for value in echo_runtime.seen] == [0, 10]


def test_batch_that_is_not_finished_then_is_told_so_too(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime, drain_seconds=1) as server:
        echo_runtime.hold()
        with server.connect() as running:
            running.sendall(form(part(solid(10), "files"), part(solid(20), "files"), target="/classify/batch"))
            echo_runtime.wait_until_running()
            server.stop()
            answer = read_answer(running)
            assert (answer.status, answer.body["error"]["type"]) == (503, "stopping")
            assert "x-request-id" in answer.headers
            echo_runtime.release()
    assert (server.requests("stopping", "/classify/batch"), server.images("stopping")) == (1, 2)
