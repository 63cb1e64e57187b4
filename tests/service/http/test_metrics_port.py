from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack

import httpx
import pytest

from service.engine.runtimes.onnx import OnnxRuntime
from tests.image_files import pngs
from tests.runtimes import wait_until
from tests.service.server import serving

pytestmark = pytest.mark.slow


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _scrape(port: int) -> httpx.Response:
    with httpx.Client(trust_env=False, verify=False) as client:
        return client.get(f"http://127.0.0.1:{port}/metrics")


def test_metrics_are_told_on_their_own_port_and_nowhere_else(runtime: OnnxRuntime, free_port: int) -> None:
    with serving(runtime, metrics_port=free_port) as server:
        server.classify(pngs(1)[0])
        told = _scrape(free_port)
        assert told.status_code == 200
        assert 'aig_images_total{model="small",outcome="ok",version="1"} 1.0' in told.text
        assert server.get("/metrics").status_code == 404
        assert "/metrics" not in server.get("/openapi.json").json()["paths"]
    with pytest.raises(httpx.ConnectError):
        _scrape(free_port)


def test_port_that_is_taken_keeps_the_service_from_starting(runtime: OnnxRuntime, free_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        with pytest.raises(OSError, match="in use"), serving(runtime, metrics_port=free_port):
            pass


def test_connections_that_ask_for_nothing_are_few_and_end(
    runtime: OnnxRuntime, free_port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.http.metrics_port._Request.timeout", 0.5)
    with serving(runtime, metrics_port=free_port), ExitStack() as stack:
        before = threading.active_count()
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", free_port), 10)) for _ in range(100)]
        assert threading.active_count() - before < 40
        for connection in idle:
            assert connection.recv(1) == b""
        assert _scrape(free_port).status_code == 200
    assert capfd.readouterr() == ("", "")


def _answers(port: int) -> bool:
    try:
        return _scrape(port).status_code == 200
    except httpx.HTTPError:
        return False


def test_client_that_leaves_is_not_logged(
    runtime: OnnxRuntime, free_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(runtime, metrics_port=free_port):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", free_port), 10) as connection:
                connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: _answers(free_port))  # once it has noticed that enough of them have left
    assert capfd.readouterr() == ("", "")
