from __future__ import annotations

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import httpx
import pytest

from tests.e2e.process import ROOT, ServerProcess, environment
from tests.runtimes import PATIENCE_S, wait_until


class Upload:
    """One raw image sent by hand, so that it can stop or break off anywhere."""

    def __init__(self, server: ServerProcess, data: bytes) -> None:
        self._connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
        self._rest = data
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
        self._connection.sendall(head.encode())

    def send(self, count: int | None = None) -> None:
        """Send so many more bytes, or the rest."""
        part, self._rest = self._rest[:count], b"" if count is None else self._rest[count:]
        self._connection.sendall(part)

    def status(self) -> int:
        """Wait for the answer."""
        with self._connection.makefile("rb") as answer:
            return int(answer.readline().split()[1])

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _together(count: int) -> tuple[str, ...]:
    """Flags of a server whose only worker waits for so many images, and so keeps fewer in the queue for sure."""
    return "--workers", "1", "--max-batch", str(count), "--max-wait-ms", "600000"


def _classify(server: ServerProcess, data: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post("/classify", content=data, headers={"content-type": "image/png"})


@pytest.mark.parametrize("whole_group", [False, True], ids=["server", "group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_every_accepted_request_be_answered(
    artifact: Path, pictures: list[bytes], number: signal.Signals, whole_group: bool
) -> None:
    with (
        ServerProcess(artifact, *_together(6)) as server,
        ThreadPoolExecutor(6) as clients,
        Upload(server, pictures[0]) as half_sent,
    ):
        half_sent.send(50)
        accepted = [clients.submit(_classify, server, data) for data in pictures[1:6]]
        wait_until(lambda: server.metric("aig_queue_depth") == 5)
        (server.signal_group if whole_group else server.signal)(number)
        wait_until(lambda: any("Shutting down" in line for line in server.lines))
        half_sent.send()
        assert half_sent.status() == 200
        assert [request.result().status_code for request in accepted] == [200] * 5
        assert server.exit_status() == 0
        assert not any("Traceback" in line for line in server.lines), server.lines


def test_idle_server_ends_at_once(artifact: Path) -> None:
    with ServerProcess(artifact) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200  # leaves a connection open
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0


def test_client_that_leaves_withdraws_its_image(artifact: Path, pictures: list[bytes]) -> None:
    with ServerProcess(artifact, *_together(2)) as server, Upload(server, pictures[0]) as leaving:
        leaving.send()
        wait_until(lambda: server.metric("aig_queue_depth") == 1)
        leaving.close()
        wait_until(lambda: server.metric("aig_requests_total", route="/classify", outcome="client_gone") == 1)
        # The next image makes two, and only then is it found that the first is not wanted any more.
        assert _classify(server, pictures[1]).status_code == 200
        assert server.metric("aig_batch_size_sum") == 1


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_missing_model_ends_the_program_with_one_clear_line(tmp_path: Path) -> None:
    finished = _run("serve", "--model", str(tmp_path / "nowhere"), "--port", "0")
    assert (finished.returncode, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    assert line == f"ERROR:    no artifact in {tmp_path / 'nowhere'}: there is no such folder"


@pytest.mark.parametrize("flags", [["--port"], ["--port", "0", "--metrics-port"]], ids=["port", "metrics port"])
def test_taken_port_ends_the_program_with_one_clear_line(artifact: Path, flags: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = _run("serve", "--model", str(artifact), *flags, port)
    assert (finished.returncode, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    why = "Address already in use; stop what listens there, or choose another port"
    assert line == f"ERROR:    cannot listen on port {port} of 127.0.0.1: {why}"
