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
from tests.service.http_server import RunningServer, ask, form, http_serving, part, post, read_answer

PNG = solid(7)
ALIVE = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.fixture
def server(echo_runtime: EchoRuntime) -> Iterator[RunningServer]:
    """One worker that can be held up."""
    with http_serving(echo_runtime) as server:
        yield server
        echo_runtime.release()


def _connections(server: RunningServer) -> set[Any]:
    connections: set[Any] = server.server.uvicorn.server_state.connections
    wait_until(lambda: bool(connections))
    return connections


def _chunked(body: bytes, *lines: str) -> bytes:
    head = ["POST /classify HTTP/1.1", "host: a", "transfer-encoding: chunked", *lines, "", ""]
    return "\r\n".join(head).encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


_WISHES = [("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), ("Upgrade: websocket", "Connection: upgrade")]


@pytest.mark.parametrize("wish", _WISHES)
@pytest.mark.parametrize("cut", [None, 30, -1, -5])
def test_wish_for_another_protocol_is_ignored_and_the_body_read(
    server: RunningServer, wish: tuple[str, str], cut: int | None
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


def test_body_of_a_request_with_such_a_wish_is_no_request(server: RunningServer) -> None:
    for target in ("/classify", "/healthz"):
        with server.connect() as connection:
            connection.sendall(post(ALIVE, *_WISHES[0], target=target) + post(PNG))
            assert read_answer(connection).status in (405, 415)
            assert read_answer(connection).status == 200
    assert server.requests("ok", "/healthz") == 0


def test_form_with_such_a_wish_is_read(server: RunningServer) -> None:
    request = form(part(PNG)).replace(b"host: a", b"host: a\r\nConnection: Upgrade\r\nUpgrade: h2c")
    assert ask(server, request).status == 200
    batch = form(part(PNG, "files"), part(PNG, "files"), target="/classify/batch")
    batch = batch.replace(b"host: a", b"host: a\r\nConnection: Upgrade\r\nUpgrade: h2c")
    assert [item["error"] for item in ask(server, batch).body["results"]] == [None, None]


def test_no_more_is_read_while_requests_wait_for_their_turn(echo_runtime: EchoRuntime, server: RunningServer) -> None:
    echo_runtime.hold()
    many = ALIVE * 2000
    with server.connect() as connection:
        connection.sendall(post(PNG))
        connection.settimeout(0.3)
        sent = 0
        with suppress(TimeoutError):
            while sent < 1 << 27:
                sent += connection.send(many)
        assert sent < 1 << 24  # which lies in the system's buffers
        (protocol,) = _connections(server)
        assert len(protocol.conn.trailing_data[0]) < 1 << 16
        echo_runtime.release()
        connection.settimeout(10)
        assert [read_answer(connection).status for _ in range(500)] == [200] * 500


@pytest.mark.parametrize("first", ["image", "form", "chunked", "batch"])
def test_client_that_leaves_with_requests_waiting_is_gone_and_nobodys_fault(
    echo_runtime: EchoRuntime, server: RunningServer, first: str, caplog: pytest.LogCaptureFixture
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
    wait_until(lambda: not server.server.uvicorn.server_state.tasks)
    assert server.requests("internal_error") == server.requests("internal_error", "/classify/batch") == 0
    assert caplog.records == []
    assert server.context.memory.held == 0


def test_long_head_is_refused(server: RunningServer) -> None:
    assert ask(server, post(PNG, "x: " + "a" * 15_000)).status == 200
    for long in (["x: " + "a" * 50_000], ["x: y"] * 20_000):
        with server.connect() as connection:
            connection.sendall(post(PNG, *long))
            assert connection.recv(12) == b"HTTP/1.1 400"
    large = pngs(1)[0] + bytes(100_000)  # the head is measured without the body
    assert ask(server, post(large)).status == 200
