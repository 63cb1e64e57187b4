from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from service.http import front_door
from service.http.front_door import FrontDoor, Guest
from tests.image_files import solid
from tests.runtimes import EchoRuntime, wait_until
from tests.service.http_server import RunningServer, ask, http_serving, post, read_answer

pytestmark = pytest.mark.slow


@pytest.fixture
def server(echo_runtime: EchoRuntime) -> Iterator[RunningServer]:
    with http_serving(echo_runtime, max_connections=6, max_connections_per_address=3) as server:
        yield server


def _connect(server: RunningServer, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 10, (address, 0))


def test_address_may_have_so_many_connections_and_others_still_get_theirs(server: RunningServer) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(_connect(server)) for _ in range(3)]
        for connection in held:
            connection.sendall(post(solid(10)))
            assert read_answer(connection).status == 200
        refused = stack.enter_context(_connect(server))
        answer = read_answer(refused)
        assert (answer.status, answer.body["error"]["type"]) == (503, "too_many_connections")
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
        assert answer.body["error"]["request_id"] == answer.headers["x-request-id"]
        assert refused.recv(1) == b""
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            other = stack.enter_context(_connect(server, address))
            other.sendall(post(solid(10)))
            assert read_answer(other).status == 200
        last = read_answer(stack.enter_context(_connect(server, "127.0.0.5")))
        assert last.status == 503  # now there are as many as there may be in all
    wait_until(lambda: server.requests("too_many_connections", "unmatched") == 2)
    wait_until(lambda: not server.server.uvicorn.server_state.connections)
    assert ask(server, post(solid(10))).status == 200


def test_many_that_are_turned_away_are_not_all_waited_for(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_door, "_MOST_TURNED_AWAY", 2)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(_connect(server))
        more = [stack.enter_context(_connect(server)) for _ in range(4)]
        told = []
        for connection in more:
            try:
                told.append(connection.recv(4096)[:12])
            except ConnectionResetError:
                told.append(b"")
    assert told == [b"HTTP/1.1 503"] * 2 + [b""] * 2


@pytest.mark.parametrize("sent", [b"", b"GET / HT", post(solid(10))[:-3]], ids=["nothing", "head", "body"])
def test_connection_that_does_nothing_is_closed(
    echo_runtime: EchoRuntime, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.server._IDLE_S", 0.5)
    with http_serving(echo_runtime, deadline_ms=1000) as server, server.connect() as connection:
        connection.sendall(sent)
        received = b""
        while more := connection.recv(4096):
            received += more
    if sent.startswith(b"POST"):
        assert received.startswith(b"HTTP/1.1 408 ")
        assert json.loads(received.split(b"\r\n\r\n")[1])["error"]["type"] == "upload_timeout"
    else:
        assert received == b""


def test_connection_that_waits_for_its_answer_is_left_alone(
    echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.server._IDLE_S", 0.2)
    with http_serving(echo_runtime) as server, server.connect() as connection:
        echo_runtime.hold()
        connection.sendall(post(solid(10)))
        connection.settimeout(2.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        echo_runtime.release()
        assert read_answer(connection).status == 200


def test_nobody_is_counted_who_is_gone(server: RunningServer) -> None:
    door: FrontDoor = server.server.door
    for _ in range(20):
        with _connect(server):
            pass
    wait_until(lambda: not door.is_open_to_anybody)
    assert not door._by_address


@contextmanager
def _asking_for_much(
    runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RunningServer, socket.socket]]:
    """A server that waits for a second, and a client with little room that has asked it for a long answer."""
    monkeypatch.setattr("service.http.server._IDLE_S", 1.0)
    monkeypatch.setattr("service.http.server._SWEEP_S", 0.1)
    with http_serving(runtime) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.0\r\n\r\n")
        yield server, connection


def test_client_that_reads_slowly_gets_all_of_a_long_answer(
    echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _asking_for_much(echo_runtime, monkeypatch) as (_, connection):
        began, read = time.monotonic(), 0
        while piece := connection.recv(65_536):
            read += len(piece)
            time.sleep(max(0.0, began + read / 400_000 - time.monotonic()))
    assert read > 1_000_000
    assert time.monotonic() - began > 2.5


def test_client_that_reads_next_to_nothing_of_a_long_answer_is_left(
    echo_runtime: EchoRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _asking_for_much(echo_runtime, monkeypatch) as (server, connection):
        end = time.monotonic() + 5.0
        while server.server.door.is_open_to_anybody or time.monotonic() < end - 4.5:
            assert time.monotonic() < end
            connection.recv(10)
            time.sleep(0.05)


def test_connection_that_was_closed_before_it_was_let_in_is_not_answered() -> None:
    class Closed(asyncio.Transport):
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        raise AssertionError("nothing was to be answered")

    config, loop = Config(answer, interface="asgi3", log_config=None), asyncio.new_event_loop()
    config.load()
    transport, door = Closed(), FrontDoor(1, 1, 1.0)
    guest = Guest(door, H11Protocol(config, ServerState(), {}, loop))
    guest.connection_made(transport)
    guest.buffer_updated(10)
    guest.connection_lost(None)
    assert transport.aborted
    assert not door.is_open_to_anybody
    loop.close()
