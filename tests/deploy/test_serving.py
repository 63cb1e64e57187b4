"""A real server with the settings that the chart gives it."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.deploy.helm import ROOT, environment, service
from tests.e2e.process import ServerProcess
from tests.runtimes import PATIENCE_S

pytestmark = pytest.mark.slow

MODEL = ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def test_server_answers_probes_and_prometheus_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    metrics, grpc = _free_ports(2)
    values = {"metrics": {"port": metrics}, "grpc": {"port": grpc}, "settings": {"max_bytes": 20_000_000}}
    here = {"AIG_HOST": "127.0.0.1", "AIG_METRICS_HOST": "127.0.0.1", "AIG_CACHE": str(tmp_path)}
    told = {name: value for name, value in environment(values).items() if name.startswith("AIG_")} | here
    del told["AIG_PORT"]  # a free one is taken
    flags = [f"--{name.removeprefix('AIG_').lower().replace('_', '-')}={value}" for name, value in told.items()]

    with ServerProcess(MODEL, *flags) as server, server.client() as client:
        probes = [service(values)[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
        assert [client.get(path).status_code for path in probes] == [200, 200, 200]
        assert client.get("/metrics").status_code == 404
        scraped = httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=PATIENCE_S, trust_env=False)
        assert "\naig_ready 1.0\n" in scraped.text
        socket.create_connection(("127.0.0.1", grpc), timeout=PATIENCE_S).close()
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
