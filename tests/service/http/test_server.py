"""How the server begins to listen and how it ends."""

from __future__ import annotations

import logging
import resource
import signal
import socket
from collections.abc import Iterator
from threading import Thread

import pytest
import uvicorn

from service.app import create_app
from service.http.listening import taken_port
from service.http.server import HttpServer
from service.settings import Settings
from tests.image_files import solid
from tests.runtimes import PATIENCE_S, EchoRuntime, wait_until
from tests.service.http_server import http_serving, post, read_answer
from tests.service.server import pool


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    with taken_port(["127.0.0.1"], 0) as taken:
        yield taken


def _server(runtime: EchoRuntime) -> HttpServer:
    settings = Settings(workers=1, max_batch=1, max_wait_ms=0)
    app = create_app(settings, pool(runtime, settings))
    return HttpServer(app, app.context, app.turns)


def _must_not_be_called(*_: object) -> None:
    pytest.fail("a handler from before the server ran")


def _port(listeners: list[socket.socket]) -> int:
    (listener,) = listeners
    return int(listener.getsockname()[1])


def test_connections_are_refused_until_the_server_says_where_it_runs(
    echo_runtime: EchoRuntime, listeners: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    port = _port(listeners)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    server = _server(echo_runtime)
    with caplog.at_level(logging.INFO, logger="uvicorn.error"):
        thread = Thread(target=server.run, args=[listeners])
        thread.start()
        wait_until(lambda: f"Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)" in caplog.messages)
    socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    server.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_signal_while_the_event_loop_is_set_up_stops_the_server(
    echo_runtime: EchoRuntime, listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    get_loop_factory = uvicorn.Config.get_loop_factory

    def signalled(config: uvicorn.Config) -> object:
        signal.raise_signal(signal.SIGTERM)
        return get_loop_factory(config)

    monkeypatch.setattr(uvicorn.Config, "get_loop_factory", signalled)
    before = signal.signal(signal.SIGTERM, _must_not_be_called)
    try:
        assert _server(echo_runtime).run(listeners)
        assert signal.getsignal(signal.SIGTERM) is _must_not_be_called
    finally:
        signal.signal(signal.SIGTERM, before)


def test_port_on_which_another_listens_meanwhile_is_told(
    echo_runtime: EchoRuntime, listeners: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    with taken_port(["127.0.0.1"], _port(listeners)) as (other,):  # nobody listens yet
        other.listen()
        assert not _server(echo_runtime).run(listeners)
    (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert error.startswith("cannot listen: another program")


def test_stop_before_it_listens_is_heeded(echo_runtime: EchoRuntime, listeners: list[socket.socket]) -> None:
    server = _server(echo_runtime)
    server.stop()
    assert server.run(listeners)  # and it returns


def test_answers_of_a_server_that_stops_end_their_connections(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime) as server, server.connect() as connection, server.connect() as fresh:
        connection.sendall(post(solid(10)))
        answer = read_answer(connection)
        assert (answer.status, answer.headers.get("connection")) == (200, None)
        server.stop()
        wait_until(lambda: server.context.engine.crew.leaving)
        for each in (connection, fresh):  # what is on its way is still answered
            each.sendall(post(solid(20)))
            answer = read_answer(each)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert each.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_server_may_open_a_file_for_every_connection(echo_runtime: EchoRuntime) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
    try:
        _server(echo_runtime)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 2048
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_prefix_that_is_set_is_part_of_every_link(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime, root_path="/aig") as server, server.connect() as connection:
        connection.sendall(b"GET /docs HTTP/1.0\r\n\r\n")
        page = connection.makefile("rb").read().decode()
    assert "/aig/openapi.json" in page
    assert "/aig/static-offline-docs/" in page
