"""Too little memory, several models, several threads."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from artifact.probes import read_probes
from bench.gpu.correctness import only
from service.engine.errors import DeviceOutOfMemory
from service.engine.runtimes.base import Model
from service.engine.runtimes.cuda.device import CudaDevice
from service.engine.runtimes.cuda.runtime import Compile, CudaRuntime
from service.engine.runtimes.selection import open_runtime
from tests.gpu.conftest import SHIPPED

pytestmark = pytest.mark.timeout(600)

_CASCADE = SHIPPED.parents[1] / "cascade-14-26-cifar10" / "1"


class SmallDevice(CudaDevice):
    """Has no more memory than it is told."""

    def __init__(self, memory: int) -> None:
        super().__init__(0)
        self._left, self._sizes = memory, dict[int, int]()

    def allocate(self, size: int) -> int:
        if size > self._left:
            # What the driver says to a request that no device can meet.
            return super().allocate(1 << 50)
        self._left -= size
        address = super().allocate(size)
        self._sizes[address] = size
        return address

    def free(self, address: int) -> None:
        super().free(address)
        self._left += self._sizes.pop(address)


def test_device_goes_on_after_a_request_for_too_much_memory(model: Model, compiled: Compile) -> None:
    device = CudaDevice(0)
    with pytest.raises(DeviceOutOfMemory):
        device.allocate(1 << 50)
    runtime = CudaRuntime(model, device, "fp16", compiled, 8, only("lists"))
    assert np.isfinite(
        runtime.run(read_probes(model.folder, model.manifest).images[:8], np.zeros(8, np.float32))[0]
    ).all()
    runtime.close()


def test_batches_are_halved_until_they_fit(model: Model, compiled: Compile, caplog: pytest.LogCaptureFixture) -> None:
    whole = SmallDevice(1 << 40)
    CudaRuntime(model, whole, "fp16", compiled, 32, only("lists"))
    needed = sum(whole._sizes.values())
    with caplog.at_level(logging.WARNING):
        runtime = CudaRuntime(model, SmallDevice(needed * 2 // 3), "fp16", compiled, 32, only("lists"))
    assert runtime.largest < 32
    assert "too little memory" in caplog.text
    probes = read_probes(model.folder, model.manifest)
    _, margins = runtime.run(probes.images, np.zeros(len(probes), np.float32))
    opened = model.manifest.gating.opened
    assert (opened(margins) == opened(probes.margins)).mean() > 0.98


def test_two_models_run_beside_each_other(kept: Path) -> None:
    runtimes = [open_runtime(folder, "cuda", "cuda", "fp16", kept) for folder in (SHIPPED, _CASCADE)]
    probes = [read_probes(folder, each.manifest) for folder, each in zip((SHIPPED, _CASCADE), runtimes, strict=True)]

    def predictions(number: int) -> np.ndarray:
        images = probes[number].images
        return runtimes[number].run(images, np.zeros(len(images), np.float32))[0].argmax(axis=1)

    alone = [predictions(number) for number in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(predictions, [0, 1] * 50)):
            assert (found == alone[number % 2]).all()
