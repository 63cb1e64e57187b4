from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.process import ServerProcess


@pytest.mark.parametrize(
    ("isolation", "processes"), [("process", {"server", "worker-0", "worker-1"}), ("thread", {"server"})]
)
def test_workers_are_processes_or_threads(
    artifact: Path, pictures: list[bytes], isolation: str, processes: set[str]
) -> None:
    flags = ("--isolation", isolation, "--runtime", "onnx", "--workers", "2", "--max-batch", "1")
    with ServerProcess(artifact, *flags) as server, server.client() as client:
        answers = [client.post("/classify", content=picture) for picture in pictures]
        assert [answer.status_code for answer in answers] == [200] * len(pictures)
        assert client.get("/model").json()["engine"]["workers"] == 2
        names = {name for name in ("server", "worker-0", "worker-1", "worker-2") if _memory(server, name)}
    assert names == processes


def _memory(server: ServerProcess, process: str) -> float:
    return server.metric("aig_resident_memory_bytes", process=process)
