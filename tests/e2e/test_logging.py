"""What a real server writes, read as a program would, while clients try to write lines of their own into it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import ROOT, ServerProcess, environment
from tests.runtimes import PATIENCE_S, wait_until

FORGED = '{"level": "info", "message": "forged"}'


def _send(server: ServerProcess, head: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def _attack(server: ServerProcess, pictures: list[bytes]) -> int:
    """Ask for a classification, and try to forge a line in every way there is; return how many requests were made.

    What is no HTTP is refused by the server before it is a request.
    """
    answers = []
    closing = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    # A bare line feed is refused, or ends a header; other control characters may get through the parser.
    for nasty in (b"a\x0b" + FORGED.encode(), b'a"}\x85' + FORGED.encode(), b"a\n" + FORGED.encode(), b"a\x1b[2KINFO:"):
        answers.append(_send(server, b"GET /healthz" + closing + b"X-Request-ID: " + nasty + b"\r\n\r\n"))
        answers.append(_send(server, b"GET /healthz" + closing + b"User-Agent: " + nasty + b"\r\n\r\n"))
        answers.append(_send(server, b"GET /" + nasty + closing + b"\r\n"))
    with server.client() as client:
        client.get("/%0A" + FORGED.replace(" ", "%20") + "?api_key=s3cret")
        client.post("/classify", files={"file": ("a\r\n" + FORGED, b"no image")})
        client.post("/classify", content=b"\n" + FORGED.encode(), headers={b"content-type": b"image/\x85"})
        answer = client.post("/classify", content=pictures[0], headers={"X-Request-ID": "last"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "last")
    wait_until(lambda: any("request_id" in line and "last" in line for line in server.lines))
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 400 ")]
    assert 0 < len(refused) < len(answers)
    return len(answers) - len(refused) + 4


def test_every_line_is_json_and_none_is_forged(artifact: Path, pictures: list[bytes]) -> None:
    with ServerProcess(artifact, "--workers", "1", "--log-format", "json", "--log-level", "debug") as server:
        requests = _attack(server, pictures)
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in server.lines]
    assert {"timestamp", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert not [line for line in lines if line["message"] == "forged" or "s3cret" in str(line)]
    answered = [line for line in lines if line["logger"] == "service.observability.access_log"]
    assert len(answered) == requests
    assert (answered[-1]["request_id"], answered[-1]["outcome"]) == ("last", "ok")
    assert lines[-1]["message"].startswith("Finished server process")


def test_no_line_of_text_is_forged(artifact: Path, pictures: list[bytes]) -> None:
    with ServerProcess(artifact, "--workers", "1", "--access-log", "on") as server:
        _attack(server, pictures)
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
    assert [line for line in server.lines if not line.startswith(("INFO: ", "WARNING: "))] == []
    assert not [line for line in server.lines if "forged" in line or "s3cret" in line or "\x1b" in line]


@pytest.mark.parametrize("occupied", [True, False])
def test_server_that_cannot_start_says_so_in_json_too(artifact: Path, occupied: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1] if occupied else 0
        model = artifact if occupied else artifact / "nowhere"
        command = ["serve", "--model", str(model), "--port", str(port), "--workers", "1", "--log-format", "json"]
        finished = subprocess.run(
            [sys.executable, "-m", "service", *command],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert finished.returncode != 0
    lines = [json.loads(line) for line in finished.stderr.splitlines()]
    (error,) = [line for line in lines if line["level"] == "error"]
    assert ("Address already in use" if occupied else "no artifact in") in error["message"]
