"""What NVML tells of the GPUs that run models: how busy, full and hot they are, and what power they draw."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Literal

_log = logging.getLogger(__name__)

_OLDEST_S = 10.0

Quantity = Literal[
    "utilisation_ratio",
    "memory_used_bytes",
    "memory_total_bytes",
    "temperature_celsius",
    "power_watts",
    "power_limit_watts",
]

# Of what NVML tells (its memory that is used includes what the driver keeps for itself, so a full device is full).
_QUESTIONS: dict[Quantity, Callable[[Any, Any], float]] = {
    "utilisation_ratio": lambda nvml, device: nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
    "memory_used_bytes": lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).used,
    "memory_total_bytes": lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).total,
    "temperature_celsius": lambda nvml, device: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
    "power_watts": lambda nvml, device: nvml.nvmlDeviceGetPowerUsage(device) / 1000,
    "power_limit_watts": lambda nvml, device: nvml.nvmlDeviceGetEnforcedPowerLimit(device) / 1000,
}


@dataclass(frozen=True)
class Reading:
    """What is known of one device.

    Attributes:
        name: of its kind.
        uuid: its own.
        quantities: those that it tells; few devices tell all, and an instance of MIG only its memory.
    """

    name: str
    uuid: str
    quantities: Mapping[Quantity, float]


def open_nvml() -> Any:
    """NVIDIA's module, not initialised.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import pynvml
    except ImportError as error:
        raise ImportError("readings of GPUs need a package of their own: pip install nvidia-ml-py") from error
    return pynvml


class DeviceReadings:
    """Reads in a thread, since a call of NVML may hang; what it read last is there at once, until it is too old.

    Args:
        devices: what CUDA calls them, by their numbers.
        open_module: gives the module `pynvml`, or what has its functions.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        devices: Mapping[int, str],
        open_module: Callable[[], Any] = open_nvml,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._devices, self._open_module, self._clock = devices, open_module, clock
        self._nvml: Any = None  # while it is initialised
        self._latest: tuple[float, dict[int, Reading]] = (-math.inf, {})
        self._problem = ""

    def latest(self) -> dict[int, Reading | None]:
        """Of every device, by its number; None where NVML does not answer, or has not for a while."""
        read_at, readings = self._latest
        is_old = self._clock() - read_at > _OLDEST_S
        return {number: None if is_old else readings.get(number) for number in self._devices}

    @contextmanager
    def kept_fresh(self, pause_s: float = 1.0) -> Iterator[None]:
        """Read meanwhile, with a pause after each time. The thread is not waited for: it may hang."""
        over = Event()

        def go_on() -> None:
            self.read()
            while not over.wait(pause_s):
                self.read()
            self._shut_down()

        Thread(target=go_on, name="device readings", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def read(self) -> None:
        """Ask once. What does not answer is told by `latest`, and logged when it begins and when it ends."""
        began, readings, problems = self._clock(), dict[int, Reading](), list[str]()
        try:
            self._initialise()
            for number, name in self._devices.items():
                try:
                    readings[number] = _reading(self._nvml, name)
                except Exception as error:  # whatever the driver does
                    problems.append(f"device {number}: {error}")
        except Exception as error:  # it is not installed, or there is no driver
            problems.append(str(error))
        if problems:  # to begin anew may help, as after an update of the driver
            self._shut_down()
        self._latest = (began, readings)
        self._note("; ".join(problems))

    def _initialise(self) -> None:
        if self._nvml is None:
            nvml = self._open_module()
            nvml.nvmlInit()
            self._nvml = nvml

    def _shut_down(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml:
            with suppress(Exception):
                nvml.nvmlShutdown()

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("NVML does not tell of every GPU: %s", problem) if problem else _log.info("NVML answers again")
        self._problem = problem


def _reading(nvml: Any, name: str) -> Reading:
    device = _device(nvml, name)
    quantities: dict[Quantity, float] = {}
    for quantity, ask in _QUESTIONS.items():
        with suppress(nvml.NVMLError):  # not this one
            quantities[quantity] = ask(nvml, device)
    if not quantities:
        raise LookupError("NVML tells nothing of it")
    return Reading(nvml.nvmlDeviceGetName(device), nvml.nvmlDeviceGetUUID(device), quantities)


def _device(nvml: Any, name: str) -> Any:
    """NVML's handle of what CUDA calls by that name: a place in the order of the PCI bus, a UUID, or how one begins."""
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    with suppress(nvml.NVMLError):  # it takes nothing but a whole one
        return nvml.nvmlDeviceGetHandleByUUID(name)
    for index in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        if nvml.nvmlDeviceGetUUID(device).startswith(name):
            return device
    raise LookupError(f"there is no device {name}")
