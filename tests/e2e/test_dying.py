"""Signals at bad moments, and processes that are gone or do nothing."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.process import ROOT, ServerProcess, environment
from tests.processes import children, is_running
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.http_server import post, read_answer


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7])
def test_server_that_is_told_to_end_while_it_starts_ends_without_a_word(artifact: Path, after_s: float) -> None:
    command = [sys.executable, "-m", "service", "serve", "--model", str(artifact), "--port", "0", "--workers", "2"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as server:
        time.sleep(after_s)
        for _ in range(2):
            server.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        _, said = server.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said
    assert server.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM)


def test_two_signals_while_it_serves_end_it_once(artifact: Path) -> None:
    with ServerProcess(artifact) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200
        for _ in range(3):
            server.signal(signal.SIGTERM)
            time.sleep(0.1)
        assert server.exit_status() == 0
    assert not any("Traceback" in line for line in server.lines), server.lines


def test_nothing_is_reset_while_the_server_stops(artifact: Path, pictures: list[bytes]) -> None:
    """Clients that connect and ask without a pause get an answer to all they could send, or no connection."""

    def ask_until_refused(server: ServerProcess, keep: bool, answered: list[bool]) -> None:
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
            except ConnectionRefusedError:
                return answered
            with connection:
                while True:
                    connection.sendall(post(pictures[0]))
                    answer = read_answer(connection)
                    assert answer.status == 200
                    answered.append(keep)
                    if not keep or answer.headers.get("connection") == "close":
                        break

    for _ in range(3):
        with ServerProcess(artifact, "--workers", "1") as server, ThreadPoolExecutor(8) as clients:
            every: list[list[bool]] = [[] for _ in range(8)]
            asking = [
                clients.submit(ask_until_refused, server, number % 2 == 0, answered)
                for number, answered in enumerate(every)
            ]
            wait_until(lambda: all(len(answered) > 1 for answered in every))  # noqa: B023 (it is of this round)
            server.signal(signal.SIGTERM)
            for client in asking:
                client.result(PATIENCE_S)
            assert server.exit_status() == 0


@pytest.mark.parametrize("number", [None, signal.SIGSTOP])
def test_workers_end_with_a_server_that_is_killed(artifact: Path, number: signal.Signals | None) -> None:
    with ServerProcess(artifact, "--workers", "2") as server:
        wait_until(lambda: len(children(server.pid)) == 2)
        workers = children(server.pid)
        wait_until(lambda: server.metric("aig_ready") == 1)
        if number:
            os.kill(workers[0], number)
        server.signal(signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda: not any(map(is_running, workers)))
        assert time.monotonic() - killed_at < 8


def test_server_whose_workers_are_suspended_is_not_ready(artifact: Path) -> None:
    with ServerProcess(artifact, "--workers", "2") as server, server.client() as client:
        wait_until(lambda: len(children(server.pid)) == 2 and client.get("/readyz").status_code == 200)
        workers = children(server.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        suspended_at = time.monotonic()
        wait_until(lambda: client.get("/readyz").status_code == 503)
        assert time.monotonic() - suspended_at < 8
        assert client.get("/readyz").json()["reason"] == "no worker is running"
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: client.get("/readyz").status_code == 200)


def test_image_for_which_there_is_no_worker_is_refused_at_once(
    artifact: Path, pictures: list[bytes], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(artifact, model)
    with ServerProcess(model, "--workers", "2") as server, server.client() as client:
        wait_until(lambda: len(children(server.pid)) == 2 and client.get("/readyz").status_code == 200)
        (model / "manifest.json").rename(tmp_path / "elsewhere")
        for worker in children(server.pid):
            os.kill(worker, signal.SIGKILL)

        def classify() -> tuple[int, str]:
            answer = client.post("/classify", content=pictures[0], headers={"content-type": "image/png"})
            return answer.status_code, answer.json().get("error", {}).get("type", "ok")

        wait_until(lambda: classify() == (503, "no_worker"))
        asked_at = time.monotonic()
        assert classify() == (503, "no_worker")
        assert time.monotonic() - asked_at < 8
        (tmp_path / "elsewhere").rename(model / "manifest.json")
        wait_until(lambda: classify() == (200, "ok"))
