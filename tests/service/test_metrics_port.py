from __future__ import annotations

import socket

import httpx
import pytest

from service.engine.onnx_runtime import OnnxRuntime
from tests.image_files import pngs
from tests.service.server import serving


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
        assert 'aig_images_total{outcome="ok"} 1.0' in told.text
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
