"""The service on a device that is Triton's interpreter: workers decode, the device's process runs what they send."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from artifact.agreement import LogitsAndMargins
from service.app import create_app
from service.engine import nvidia_driver
from service.engine.errors import RuntimeUnavailable
from service.images import workers
from service.images.decoding import ImageDecoder
from service.settings import Settings
from tests.image_files import pngs
from tests.processes import children, command_line
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.engine.runtimes.artifacts import Exported, exported_shape
from tests.service.observability.fake_nvml import FakeGpu, FakeNvml
from tests.service.server import Server
from tests.told_metrics import told

_WORKERS = 2
_SIMULATED = "tests.service.engine.devices.simulated_main"
_PORTABLE = "tests.service.engine.devices.portable_main"


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that shows one."""
    monkeypatch.setattr(nvidia_driver, "present", lambda: True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "all gated")


def _settings(exported: Exported, device: str) -> Settings:
    """Of a service that takes its time: the interpreter is slow."""
    return Settings(
        model=exported.folder,
        device=device,
        workers=_WORKERS,
        max_batch=4,
        max_wait_ms=0,
        objective_ms=1e6,
        deadline_ms=1e6,
        stuck_seconds=PATIENCE_S,
    )


@pytest.fixture
def nvml() -> FakeNvml:
    """Of a machine with three GPUs."""
    return FakeNvml([FakeGpu(f"GPU-{letter}") for letter in "abc"])


@pytest.fixture
def server(exported: Exported, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """With two workers on one device."""
    monkeypatch.setattr(workers, "DEVICE_MODULE", _SIMULATED)
    settings = _settings(exported, "cuda")
    pool = workers.begin_pool(settings, exported.folder, exported.manifest)()
    with Server(create_app(settings, pool, nvml=lambda: nvml.module)) as running:
        yield running


def _expected(exported: Exported, pictures: list[bytes]) -> LogitsAndMargins:
    decoder = ImageDecoder(exported.manifest.preprocessing, max_bytes=1 << 20, max_pixels=1 << 20)
    images = np.stack([decoder.decode(picture) for picture in pictures])
    return exported.portable.run(images, np.zeros(len(images), np.float32))


def test_images_are_answered_as_the_network_answers_them(server: Server, exported: Exported) -> None:
    pictures = pngs(12)
    logits, _ = _expected(exported, pictures)
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda picture: server.post("/classify", files={"file": picture}), pictures))
    assert [answer.status_code for answer in answers] == [200] * 12
    for answer, expected in zip(answers, logits, strict=True):
        assert answer.json()["predictions"][0]["label"] == exported.manifest.labels[int(expected.argmax())]
    engine = server.get("/model").json()["engine"]
    assert (engine["device"], engine["precision"], engine["workers"]) == ("cuda", "fp32", _WORKERS)
    assert "the interpreter" in engine["runtime"]


def test_files_tensors_and_offsets_share_a_device(server: Server, exported: Exported) -> None:
    picture, side = pngs(1)[0], exported.manifest.input_size
    tensor = np.random.default_rng(0).normal(size=(3, side, side)).astype(np.float32)
    asked = {
        "inputs": [{"name": "images", "shape": [1, 3, side, side], "datatype": "FP32", "data": tensor.ravel().tolist()}]
    }
    with ThreadPoolExecutor(8) as clients:
        tensors = [clients.submit(server.post, "/v2/models/small/infer", json=asked) for _ in range(4)]
        files = [clients.submit(server.classify, picture) for _ in range(4)]
        answers = [each.result() for each in tensors]
        assert [each.result().status_code for each in files] == [200] * 4
    logits, _ = exported.portable.run(tensor[None], np.zeros(1, np.float32))
    probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()
    for answer in answers:
        assert answer.status_code == 200, answer.text
        outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)


def test_device_that_is_lost_costs_its_images_and_is_there_again(server: Server) -> None:
    picture = pngs(1)[0]
    assert server.classify(picture).status_code == 200
    (device,) = _children(_SIMULATED)
    os.kill(device, signal.SIGKILL)
    # A worker notices when it next asks; then both are replaced, and with them the device's process.
    wait_until(lambda: server.classify(picture).status_code == 503)
    wait_until(lambda: [server.classify(picture).status_code for _ in range(8)] == [200] * 8)
    (successor,) = _children(_SIMULATED)
    assert successor != device


def test_each_device_is_seen_by_its_process_alone_and_read_under_its_number(
    exported: Exported, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "DEVICE_MODULE", _PORTABLE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-b")
    settings = _settings(exported, "cuda:0,1")
    pool = workers.begin_pool(settings, exported.folder, exported.manifest)()
    nvml.failing = {"nvmlDeviceGetUtilizationRates"}  # as with MIG
    with Server(create_app(settings, pool, nvml=lambda: nvml.module)) as server:
        wait_until(lambda: _of_devices(server.get("/metrics")).get(("aig_device_readable", "1")) == 1)
        samples = _of_devices(scraped := server.get("/metrics"))
        wait_until(lambda: len(_children(_PORTABLE)) == 2)  # the second worker starts meanwhile
        environments = [Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in _children(_PORTABLE)]
        nvml.failing = {"nvmlDeviceGetHandleByIndex"}
        wait_until(lambda: _of_devices(server.get("/metrics"))["aig_device_readable", "0"] == 0)
    gauges = {
        "aig_device_readable": 1,
        "aig_device_info": 1,
        "aig_device_memory_used_bytes": 4 << 30,
        "aig_device_memory_total_bytes": 8 << 30,
        "aig_device_temperature_celsius": 60,
        "aig_device_power_watts": 250.5,
        "aig_device_power_limit_watts": 300,
    }
    assert samples == {(name, device): value for name, value in gauges.items() for device in "01"}
    assert 'aig_device_info{device="0",name="NVIDIA Fake",uuid="GPU-c"} 1.0' in scraped.text
    assert 'aig_device_info{device="1",name="NVIDIA Fake",uuid="GPU-b"} 1.0' in scraped.text
    assert all("CUDA_DEVICE_ORDER=PCI_BUS_ID" in environment for environment in environments)
    seen = [line for environment in environments for line in environment if line.startswith("CUDA_VISIBLE")]
    assert sorted(seen) == ["CUDA_VISIBLE_DEVICES=2", "CUDA_VISIBLE_DEVICES=GPU-b"]


def _of_devices(scraped: httpx.Response) -> dict[tuple[str, str], float]:
    """Samples of devices, by name and number."""
    return {
        (name, dict(labels)["device"]): value
        for (name, labels), value in told(scraped.text).items()
        if name.startswith("aig_device_")
    }


def _children(module: str) -> list[int]:
    """Processes of this one that run a module."""
    return [pid for pid in children(os.getpid()) if module.encode() in command_line(pid)]


def test_cpu_serves_where_the_device_cannot_run_the_model(
    exported: Exported, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "DEVICE_MODULE", "tests.service.engine.devices.refusing_main")
    settings = _settings(exported, "auto")
    pool = workers.begin_pool(settings, exported.folder, exported.manifest)()
    with Server(create_app(settings, pool, nvml=lambda: nvml.module)) as server:
        assert server.classify(pngs(1)[0]).status_code == 200
        assert server.get("/model").json()["engine"]["device"] == "cpu"
        assert "aig_device" not in server.get("/metrics").text
    assert nvml.called == []


def test_service_refuses_to_start_where_the_device_is_asked_for_and_cannot_run_the_model(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "DEVICE_MODULE", "tests.service.engine.devices.refusing_main")
    settings = _settings(exported, "cuda")
    with pytest.raises(RuntimeUnavailable, match="there is no device"):
        workers.begin_pool(settings, exported.folder, exported.manifest)()
