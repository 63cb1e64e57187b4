"""Connections on which more is asked than one request after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.image_files import pngs, solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.http_server import HttpServer, ask, form, http_serving, part, post, read_answer

PNG = solid(7)
ALIVE = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.fixture
def server(echo_runtime: EchoRuntime) -> Iterator[HttpServer]:
    """One worker that can be held up."""
    with http_serving(echo_runtime) as server:
        yield server
        echo_runtime.release()


def _connections(server: HttpServer) -> set[Any]:
    connections: set[Any] = server.uvicorn.server_state.connections
    wait_until(lambda: bool(connections))
    return connections


def _chunked(body: bytes, *lines: str) -> bytes:
    head = ["POST /classify HTTP/1.1", "host: a", "transfer-encoding: chunked", *lines, "", ""]
    return "\r\n".join(head).encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


_WISHES = [("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), ("Upgrade: websocket", "Connection: upgrade")]


@pytest.mark.parametrize("wish", _WISHES)
@pytest.mark.parametrize("cut", [None, 30, -1, -5])
def test_wish_for_another_protocol_is_ignored_and_the_body_read(
    server: HttpServer, wish: tuple[str, str], cut: int | None
) -> None:
    for request in (post(PNG, *wish), _chunked(PNG, *wish)):
        with server.connect() as connection:
            for count in (1, 2):
                connection.sendall(request[:cut])
                if cut is not None:
                    time.sleep(0.01)  # lest it be one packet
                    connection.sendall(request[cut:])
                answer = read_answer(connection)
                assert (answer.status, answer.body["predictions"][0]["index"]) == (200, 0), count
            connection.sendall(request + post(b"text") + request + ALIVE)
            assert [read_answer(connection).status for _ in range(4)] == [200, 415, 200, 200]


def test_body_of_a_request_with_such_a_wish_is_no_request(server: HttpServer) -> None:
    for target in ("/classify", "/healthz"):
        with server.connect() as connection:
            connection.sendall(post(ALIVE, *_WISHES[0], target=target) + post(PNG))
            assert read_answer(connection).status in (405, 415)
            assert read_answer(connection).status == 200
    assert server.requests("ok", "/healthz") == 0


def test_form_with_such_a_wish_is_read(server: HttpServer) -> None:
    request = form(part(PNG)).replace(b"host: a", b"host: a\r\nConnection: Upgrade\r\nUpgrade: h2c")
    assert ask(server, request).status == 200
    batch = form(part(PNG, "files"), part(PNG, "files"), target="/classify/batch")
    batch = batch.replace(b"host: a", b"host: a\r\nConnection: Upgrade\r\nUpgrade: h2c")
    assert [item["error"] for item in ask(server, batch).body["results"]] == [None, None]


def test_no_more_is_read_while_requests_wait_for_their_turn(echo_runtime: EchoRuntime, server: HttpServer) -> None:
    echo_runtime.hold()
    many = ALIVE * 2000
    with server.connect() as connection:
        connection.sendall(post(PNG))
        connection.settimeout(0.3)
        sent = 0
        with suppress(TimeoutError):
            while sent < 1 << 27:
                sent += connection.send(many)
        (protocol,) = _connections(server)
        waiting = len(protocol.pipeline)
        assert 0 < waiting < 2 * (1 << 18) / len(ALIVE)  # of what one read may bring
        assert waiting < sent / len(ALIVE) / 2
        echo_runtime.release()
        connection.settimeout(10)
        assert [read_answer(connection).status for _ in range(500)] == [200] * 500


@pytest.mark.parametrize("first", ["image", "form", "chunked", "batch"])
def test_client_that_leaves_with_requests_waiting_is_gone_and_nobodys_fault(
    echo_runtime: EchoRuntime, server: HttpServer, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    requests = {
        "image": post(PNG),
        "form": form(part(PNG)),
        "chunked": _chunked(PNG),
        "batch": form(part(PNG, "files"), target="/classify/batch"),
    }
    echo_runtime.hold()
    caplog.set_level(logging.WARNING)
    with server.connect() as connection:
        connection.sendall(requests[first] + post(PNG) + ALIVE)
        echo_runtime.wait_until_running()
    echo_runtime.release()
    with server.connect() as connection:  # and others are served
        connection.sendall(post(PNG))
        assert read_answer(connection).status == 200
    wait_until(lambda: not server.uvicorn.server_state.tasks)
    assert server.requests("internal_error") == server.requests("internal_error", "/classify/batch") == 0
    assert caplog.records == []
    assert server.context.memory.held == 0


def test_head_that_came_at_once_may_be_no_longer_than_any_other(server: HttpServer) -> None:
    for line, status in (("x: " + "a" * 60_000, 200), ("x: " + "a" * 66_000, 431)):
        assert ask(server, post(PNG, line)).status == status
    assert ask(server, post(PNG, *["x: y"] * 20_000)).status == 431
    assert ask(server, post(PNG, target="/classify?" + "a" * 66_000)).status == 431
    large = pngs(1)[0] + bytes(100_000)  # the head is measured without the body
    assert ask(server, post(large)).status == 200


def test_client_that_never_reads_its_answers_is_disconnected(echo_runtime: EchoRuntime) -> None:
    with http_serving(echo_runtime, deadline_ms=100) as server, server.connect() as connection:
        connection.settimeout(0.2)
        with suppress(TimeoutError, ConnectionError):
            while True:
                connection.send(ALIVE * 2000)
        wait_until(lambda: not server.uvicorn.server_state.connections)
        assert ask(server, post(PNG)).status == 200


def test_client_that_reads_them_at_last_keeps_its_connection(server: HttpServer) -> None:
    with server.connect() as connection:
        connection.settimeout(0.2)
        (protocol,) = _connections(server)
        with suppress(TimeoutError):
            while True:
                connection.send(ALIVE * 2000)
        wait_until(lambda: bool(protocol.flow.write_paused))
        assert protocol._unread is not None
        with suppress(TimeoutError):
            while connection.recv(1 << 20):
                pass
        assert protocol._unread is None
        assert not protocol.transport.is_closing()
