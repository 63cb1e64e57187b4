"""Clients that others made for the Open Inference Protocol, unchanged, against a server on a socket.

They run in an environment of their own, which `make test-clients` sets up: they need other versions of packages, and
have messages of the same names as the server.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from service.engine.runtimes.onnx import OnnxRuntime
from tests.e2e.process import ROOT
from tests.service.grpc.calling import grpc_serving

PYTHON = ROOT / ".venv-clients" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="make test-clients sets up what they need")
@pytest.mark.parametrize("client", ["ask_triton", "ask_kserve"])
def test_clients_of_others_get_the_same_answers_by_every_transport(
    runtime: OnnxRuntime, pictures: list[bytes], tmp_path: Path, client: str
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, picture in zip(files, pictures, strict=False):
        file.write_bytes(picture)
    script = Path(__file__).parent / f"{client}.py"
    with grpc_serving(runtime) as served:
        ports = (str(served.server.port), str(served.port))
        command = [str(PYTHON), str(script), *ports, runtime.manifest.name, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "asked\n"), done.stdout + done.stderr
