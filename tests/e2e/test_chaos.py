"""The short version of `python -m bench.chaos`, which says what it does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.process import ROOT, environment

LONGEST_S = 300


@pytest.mark.timeout(LONGEST_S)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="it looks into processes as Linux shows them")
def test_service_keeps_its_promises_while_everything_goes_wrong() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bench.chaos", "--minutes", "0", "--port", str(port)]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    assert finished.stdout, finished.stderr
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["problems"] == {}
    assert result["ok"]
    assert finished.returncode == 0
    # It did go wrong: every kind of failure that it can bring about by itself was seen.
    assert result["outcomes"].keys() >= {
        "(client left)",
        "corrupt_image",
        "empty_image",
        "image_too_large",
        "inference_failed",
        "malformed_request",
        "not_an_image",
        "overloaded",
        "too_many_pixels",
        "unsupported_media_type",
        "upload_timeout",
    }
    assert min(result["workers_hurt"].values()) >= 1
    assert result["images_right"] > 500
