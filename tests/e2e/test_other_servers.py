"""The application under ASGI servers that this project does not start itself."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.process import ROOT, ServerProcess, environment
from tests.image_files import encoded, photograph
from tests.runtimes import PATIENCE_S, wait_until

SERVERS = {
    "Granian": "-m granian --interface asgi --factory --host 127.0.0.1 --port {port} service.app:application",
    "Hypercorn": "-m hypercorn --bind 127.0.0.1:{port} service.app:application()",
}
JPEG = encoded(photograph(50, 40), "JPEG")
PNG = {"content-type": "image/png"}
FILE = ("image.jpg", JPEG)
REQUESTS: list[dict[str, Any]] = [
    {"url": "/classify", "content": JPEG, "headers": {"content-type": "image/jpeg"}},
    {"url": "/classify", "content": JPEG, "headers": {"content-type": "binary/octet-stream"}},
    {"url": "/classify?graph=summary&top_k=2", "files": {"file": FILE}},
    {"url": "/classify/batch", "files": [("files", FILE), ("files", ("b.txt", b"no image"))]},
    {"url": "/classify", "content": b"no image", "headers": PNG},
    {"url": "/classify", "content": JPEG[:-30], "headers": PNG},
    {"url": "/classify", "content": b"", "headers": PNG},
    {"url": "/classify", "content": JPEG, "headers": {"content-type": "text/plain"}},
    {"url": "/classify", "content": JPEG, "headers": PNG | {"content-encoding": "gzip"}},
    {"url": "/classify", "content": bytes(200_000), "headers": PNG},
    {"url": "/classify", "files": {"image": FILE}},
    {"url": "/classify?topk=1", "content": JPEG, "headers": PNG},
    {"url": "/classify", "method": "GET"},
    {"url": "/nothing", "content": JPEG},
    {"url": "/nothing", "content": bytes(3_000_000)},
    {"url": "/healthz", "method": "GET"},
    {"url": "/model", "method": "HEAD"},
    {"url": "/docs", "method": "GET", "headers": {"x-forwarded-prefix": "/aig"}},
]
FLAGS = {"workers": "1", "max-bytes": "100000"}


@contextmanager
def _running(command: str, artifact: Path) -> Iterator[httpx.Client]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {f"AIG_{name.upper().replace('-', '_')}": value for name, value in FLAGS.items()}
    arguments = command.format(port=port).split()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment() | settings | {"AIG_MODEL": str(artifact)},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:
                wait_until(lambda: _is_ready(client))
                yield client
        finally:
            server.terminate()
            said, _ = server.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in said, said


def _is_ready(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/readyz").status_code == 200
    return False


def _lasting(value: Any) -> Any:
    """What does not differ from one time to the next."""
    if isinstance(value, dict):
        return {name: _lasting(each) for name, each in value.items() if name not in ("timing_ms", "request_id")}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


def _answers(client: httpx.Client) -> list[Any]:
    answers = []
    for request in REQUESTS:
        answer = client.request(**{"method": "POST", **request})
        is_json = answer.content and answer.headers["content-type"] == "application/json"
        headers = {name: answer.headers.get(name) for name in ("content-type", "cache-control", "allow")}
        answers.append((answer.status_code, headers, _lasting(answer.json()) if is_json else answer.text))
    return answers


@pytest.mark.parametrize("name", SERVERS)
def test_other_server_gives_the_same_answers(artifact: Path, name: str) -> None:
    own_flags = [part for flag, value in FLAGS.items() for part in (f"--{flag}", value)]
    with ServerProcess(artifact, *own_flags) as own, own.client() as client:
        expected = _answers(client)
    assert [status for status, *_ in expected[:4]] == [200] * 4
    with _running(SERVERS[name], artifact) as client:
        assert _answers(client) == expected
