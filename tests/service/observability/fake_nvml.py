"""NVIDIA's module about GPUs, without a GPU: what it tells, and what of it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from types import SimpleNamespace
from typing import Any


class NvmlError(Exception):
    """As NVML's own."""


@dataclass(frozen=True)
class FakeGpu:
    """A GPU that is half full and half busy.

    Attributes:
        uuid: its own.
    """

    uuid: str
    name: str = "NVIDIA Fake"
    gpu: int = 50
    used: int = 4 << 30
    total: int = 8 << 30
    celsius: int = 60
    milliwatts: int = 250_500
    limit_milliwatts: int = 300_000


class FakeNvml:
    """What the service uses of `pynvml`, in `module`.

    Args:
        gpus: in the order of the PCI bus.
        instances: of MIG.

    Attributes:
        failing: names of functions that raise NVML's error.
        broken: UUIDs of GPUs of which nothing is told.
        may_answer: every call waits for it,
        hanging: and says so.
        called: names of functions, in order.
    """

    def __init__(self, gpus: Sequence[FakeGpu], instances: Sequence[FakeGpu] = ()) -> None:
        self._gpus, self._all = gpus, [*gpus, *instances]
        self.failing: set[str] = set()
        self.broken: set[str] = set()
        self.may_answer, self.hanging = Event(), Event()
        self.may_answer.set()
        self.called: list[str] = []
        self._initialised = False
        answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: self._initialise(True),
            "nvmlShutdown": lambda: self._initialise(False),
            "nvmlDeviceGetCount": lambda: len(gpus),
            "nvmlDeviceGetHandleByIndex": self._by_index,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
            "nvmlDeviceGetUtilizationRates": lambda gpu: gpu,
            "nvmlDeviceGetMemoryInfo": lambda gpu: gpu,
            "nvmlDeviceGetTemperature": lambda gpu, sensor: gpu.celsius if sensor == 0 else -1,
            "nvmlDeviceGetPowerUsage": lambda gpu: gpu.milliwatts,
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: gpu.limit_milliwatts,
        }
        functions = {name: self._called(name, answer) for name, answer in answers.items()}
        self.module = SimpleNamespace(NVMLError=NvmlError, NVML_TEMPERATURE_GPU=0, **functions)

    def _called(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.called.append(name)
            if not self.may_answer.is_set():
                self.hanging.set()
                self.may_answer.wait()
            if name in self.failing or (name not in ("nvmlInit", "nvmlShutdown") and not self._initialised):
                raise NvmlError(f"{name} fails")
            return answer(*arguments)

        return call

    def _initialise(self, to: bool) -> None:
        self._initialised = to

    def _by_index(self, index: int) -> FakeGpu:
        if index >= len(self._gpus) or self._gpus[index].uuid in self.broken:
            raise NvmlError("GPU is lost")
        return self._gpus[index]

    def _by_uuid(self, uuid: str) -> FakeGpu:
        for gpu in self._all:
            if gpu.uuid == uuid and uuid not in self.broken:
                return gpu
        raise NvmlError("Not Found")
