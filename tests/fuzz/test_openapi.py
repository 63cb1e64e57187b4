"""Requests made from the service's own OpenAPI document, and answers held against it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import settings

from service.classify.deadlines import HEADER
from tests.e2e.process import ServerProcess
from tests.runtimes import PATIENCE_S

KEY = "aig_the-key-of-this-test"
FILE_OF_KEYS = f'[keys.tester]\nsha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\nmetrics = true\n'
# No schema can say what an image is, or which models there are: bytes that are no image are refused, and names of no
# model, though the document allows any. Here nobody may load and unload.
NOT_ANY_BYTES_OR_NAMES = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 403, 404, 415]

"""
FLAGS = ("--runtime", "onnx", "--workers", "1", "--max-batch", "1", "--max-images", "4")


def _assert_as_documented(server: ServerProcess, folder: Path, configuration: str = "") -> None:
    """Run every check there is on every route.

    Schemathesis has its own program for that; its plugin for pytest does not work with the version that is used here.
    """
    tried = settings()
    (folder / "schemathesis.toml").write_text(NOT_ANY_BYTES_OR_NAMES + configuration)
    flags = ["--generation-deterministic"] if tried.derandomize else ["--generation-database", "none"]
    document = folder / "openapi.json"
    document.write_text(json.dumps(_without_time_limits(server)))
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "--no-color", "run", document, "--url", server.url, "--checks", "all", *flags]
    examples = tried.max_examples // 5
    finished = subprocess.run(
        [*command, "--max-examples", str(examples), "--mode", "all"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S + examples,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Tested: 17" in finished.stdout, finished.stdout


def _without_time_limits(server: ServerProcess) -> dict[str, Any]:
    """The document without the header that says how long an answer may take.

    No schema can say that hardly any image is answered within a tenth of a millisecond; what comes of such limits has
    tests of its own.
    """
    with server.client() as client:
        document: dict[str, Any] = client.get("/openapi.json").json()
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        if parameters := operation.get("parameters"):
            parameters[:] = [parameter for parameter in parameters if parameter["name"] != HEADER]
    return document


def test_every_answer_is_as_documented(artifact: Path, tmp_path: Path) -> None:
    with ServerProcess(artifact, *FLAGS) as server:
        _assert_as_documented(server, tmp_path)


def test_every_answer_of_a_service_with_keys_is_as_documented(artifact: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(FILE_OF_KEYS)
    with ServerProcess(artifact, *FLAGS, "--api-keys", str(file)) as server:
        # Where Schemathesis finds it, and leaves it out or spoils it to see what comes of that.
        _assert_as_documented(server, tmp_path, f'[auth.openapi.bearer]\nbearer = "{KEY}"\n')
