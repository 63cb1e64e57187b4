"""The whole service with a GPU, over HTTP; and what it does when that fails for good."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from artifact.probes import read_probes
from bench.images import probe_jpegs
from service.engine.runtimes.base import Model
from service.engine.runtimes.cuda.device import CudaDevice
from service.engine.runtimes.cuda.runtime import Compile, CudaRuntime
from tests.e2e.process import ServerProcess
from tests.gpu import trapping_service
from tests.gpu.conftest import SHIPPED
from tests.gpu.trapping import TRAP
from tests.runtimes import wait_until

pytestmark = pytest.mark.timeout(600)

_JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def cache(model: Model, compiled: Compile, kept: Path) -> Path:
    """Where the service finds its kernels, so that it starts in time."""
    for largest in (128, 8):
        CudaRuntime(model, CudaDevice(0), "fp16", compiled, largest).close()
    return kept


def test_images_are_answered_by_the_gpu(model: Model, cache: Path) -> None:
    files, probes = probe_jpegs(SHIPPED), read_probes(SHIPPED, model.manifest)
    flags = ("--device", "cuda", "--precision", "fp16", "--cache", str(cache))
    with ServerProcess(SHIPPED, *flags) as server, server.client() as client:
        told = client.get("/model").json()
        assert told["engine"]["device"] == "cuda"
        answers = [client.post("/classify", content=file, headers=_JPEG) for file in files]
        assert {answer.status_code for answer in answers} == {200}
        found = np.array([answer.json()["predictions"][0]["index"] for answer in answers])
    # JPEG changes the probes a little.
    assert (found == probes.logits[: len(found)].argmax(axis=1)).mean() > 0.9


def test_device_that_fails_is_replaced_and_requests_are_answered_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv(TRAP, str(trap))
    monkeypatch.setenv(trapping_service.DEVICE_MODULE, "tests.gpu.trapping_device_main")
    fails_and_is_replaced(trap, "--device", "cuda", "--precision", "fp16", "--cache", str(cache))


def fails_and_is_replaced(trap: Path, *flags: str) -> None:
    """Have the device of a service fail, and see that it answers again."""
    (file, *_) = probe_jpegs(SHIPPED, 1)
    with ServerProcess(SHIPPED, *flags, module="tests.gpu.trapping_service") as server, server.client() as client:

        def answered() -> httpx.Response:
            return client.post("/classify", content=file, headers=_JPEG)

        before = answered()
        assert before.status_code == 200
        trap.touch()
        wait_until(lambda: answered().status_code != 200 or not trap.exists())
        wait_until(lambda: answered().status_code == 200)
        assert not trap.exists()
        after = answered().json()
        assert after["predictions"] == before.json()["predictions"]
        ended = [line for line in server.lines if re.search(r"process \d+ of device 0 has ended, exit status 1", line)]
        assert len(ended) == 1, server.lines
