from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from threading import Thread

import pytest
import uvicorn
from pydantic_settings import SettingsError
from starlette.applications import Starlette

from service.listening import Server, taken_port
from tests.runtimes import PATIENCE_S, wait_until


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    with taken_port("127.0.0.1", 0) as taken:
        yield taken


def _port(listeners: list[socket.socket]) -> int:
    (listener,) = listeners
    return int(listener.getsockname()[1])


def _server(loop: uvicorn.config.LoopFactoryType) -> Server:
    return Server(uvicorn.Config(Starlette(), log_config=None, loop=loop))


def test_connections_are_refused_until_the_server_says_where_it_runs(
    listeners: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    port = _port(listeners)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    server = _server("auto")
    with caplog.at_level(logging.INFO, logger="uvicorn.error"):
        thread = Thread(target=server.run, args=[listeners])
        thread.start()
        wait_until(lambda: f"Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)" in caplog.messages)
    socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    server.should_exit = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_port_on_which_another_listens_meanwhile_is_told(
    listeners: list[socket.socket], loop: uvicorn.config.LoopFactoryType, caplog: pytest.LogCaptureFixture
) -> None:
    with taken_port("127.0.0.1", _port(listeners)) as (other,):  # nobody listens yet
        other.listen()
        server = _server(loop)
        server.run(listeners)
    assert not server.started
    (error,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert error.startswith("cannot listen: another program")


@pytest.mark.parametrize(("host", "why"), [("192.0.2.1", "assign"), ("nobody.invalid", "not known")])
def test_host_that_is_another_machine_is_told(host: str, why: str) -> None:
    with pytest.raises(SettingsError, match=rf"^cannot listen on port 80 of {host}: .*{why}"), taken_port(host, 80):
        pass


def test_every_address_of_a_host_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*found, *found])
    with taken_port("localhost", 0) as taken:
        assert [listener.getsockname()[0] for listener in taken] == ["127.0.0.1", "127.0.0.2"]
