"""CudaDevice against a driver that is none: what is asked of it, and what comes of its failures."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as real

from service.engine.errors import DeviceLost, DeviceOutOfMemory, RuntimeUnavailable
from service.engine.runtimes.cuda.cubins import Cubin
from service.engine.runtimes.cuda.device import Call, CudaDevice

SUCCESS, NO_MEMORY = real.CUresult.CUDA_SUCCESS, real.CUresult.CUDA_ERROR_OUT_OF_MEMORY
ILLEGAL = real.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
CUBIN = Cubin("kernel", 128, 70_000, b"code")


class FakeDriver:
    """Counts calls, and fails at one of them. What it is asked, and with what, it keeps.

    Attributes:
        calls: names and arguments.
        launched: the parameters of each kernel, read as the driver would read them.
    """

    CUresult, CUctx_flags, CUevent_flags, CUstream_flags = (
        real.CUresult,
        real.CUctx_flags,
        real.CUevent_flags,
        real.CUstream_flags,
    )
    CUstreamCaptureMode, CUfunction_attribute = real.CUstreamCaptureMode, real.CUfunction_attribute
    CUdevice_attribute = real.CUdevice_attribute

    def __init__(self, fails_at: int | None = None, error: Any = ILLEGAL) -> None:
        self._fails_at, self._error = fails_at, error
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.kinds: tuple[Any, ...] = ()
        self.launched: list[list[Any]] = []

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, arguments))
            if len(self.calls) - 1 == self._fails_at:
                return (self._error,) if name in _NOTHING else (self._error, None)
            return self._answer(name, arguments)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if name in _NOTHING:
            if name == "cuLaunchKernel":
                addresses = (ctypes.c_void_p * len(self.kinds)).from_address(arguments[9])
                read = zip(self.kinds, addresses, strict=True)
                self.launched.append([kind.from_address(address).value for kind, address in read])
            return (SUCCESS,)
        told = {"cuDeviceGetName": b"a fake\0", "cuDeviceGetAttribute": 9, "cuMemAlloc": 4096 * len(self.calls)}
        return SUCCESS, told.get(name, SimpleNamespace(of=name))


_NOTHING = {
    "cuInit",
    "cuDevicePrimaryCtxSetFlags",
    "cuCtxSetCurrent",
    "cuMemFree",
    "cuMemHostRegister",
    "cuMemHostUnregister",
    "cuMemcpyHtoD",
    "cuCtxSynchronize",
    "cuModuleUnload",
    "cuGraphExecDestroy",
    "cuEventDestroy",
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuMemcpyDtoDAsync",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuStreamBeginCapture",
    "cuStreamDestroy",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuEventRecord",
    "cuStreamWaitEvent",
    "cuEventSynchronize",
}


_MADE = {
    "cuMemAlloc": "cuMemFree",
    "cuMemHostRegister": "cuMemHostUnregister",
    "cuModuleLoadData": "cuModuleUnload",
    "cuStreamCreate": "cuStreamDestroy",
    "cuEventCreate": "cuEventDestroy",
    "cuStreamEndCapture": "cuGraphDestroy",
    "cuGraphInstantiate": "cuGraphExecDestroy",
}


def _lives(driver: FakeDriver) -> Iterator[str]:
    """Everything that a device is asked in its life; what it is about to do is told before."""
    yield "open"
    device = CudaDevice(0, driver)
    yield "run"
    address = device.allocate(1000)
    host = np.zeros(16, np.uint8)
    device.pin(host.ctypes.data, host.nbytes)
    device.write(address, host)
    stream, event = device.stream(), device.event()
    call = Call(device.load(CUBIN), 7, (address, 3, 0.5), ("*fp16", "i32", "fp32"))
    driver.kinds = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p)
    graph = device.record([call, call])
    device.copy_in(address, host.ctypes.data, 16, stream)
    device.mark(event, stream)
    device.after(event, stream)
    device.copy(address, address, 16, stream)
    device.run(graph, stream)
    device.copy_out(host.ctypes.data, address, 16, stream)
    device.wait(event)
    device.unpin(host.ctypes.data)
    device.pin(host.ctypes.data, host.nbytes)
    device.forget(graph)
    device.record([call])
    yield "clear"
    device.clear()


def test_what_is_asked_is_what_the_driver_has() -> None:
    driver = FakeDriver()
    for _ in _lives(driver):
        pass
    for name, arguments in driver.calls:
        first_line = getattr(real, name).__doc__.split("\n")[0]
        parameters = re.fullmatch(r"\w+\((.*)\)", first_line)
        assert parameters is not None, first_line
        expected = [each for each in parameters[1].split(", ") if each]
        assert len(arguments) == len(expected), f"{name}: {first_line}"


def test_all_that_was_made_is_taken_back_once() -> None:
    driver = FakeDriver()
    for doing in _lives(driver):
        if doing == "clear":
            before = len(driver.calls)
    taken = [name for name, _ in driver.calls]
    for makes, takes_back in _MADE.items():
        assert taken.count(makes) == taken.count(takes_back) > 0, makes
    assert "cuMemFree" not in taken[:before]
    names = [name for name in taken[before:] if name != "cuCtxSetCurrent"]
    assert names[-1] == "cuMemFree"  # what is made of others goes before them


def test_kernels_are_launched_with_what_they_take_while_a_stream_is_captured() -> None:
    driver = FakeDriver()
    for _ in _lives(driver):
        pass
    (first, second, _), names = driver.launched, [name for name, _ in driver.calls if name != "cuCtxSetCurrent"]
    assert first == second
    assert first[1:] == [3, 0.5, None, None]
    begin, end = names.index("cuStreamBeginCapture"), names.index("cuStreamEndCapture")
    assert names[begin + 1 : end] == ["cuLaunchKernel"] * 2
    grid = next(arguments for name, arguments in driver.calls if name == "cuLaunchKernel")[1:8]
    assert grid == (7, 1, 1, 128, 1, 1, 70_000)
    assert names.index("cuFuncSetAttribute") < begin


def _count() -> int:
    driver = FakeDriver()
    for _ in _lives(driver):
        pass
    return len(driver.calls)


@pytest.mark.parametrize("number", range(_count()))
@pytest.mark.parametrize("error", [ILLEGAL, NO_MEMORY])
def test_every_failure_of_the_driver_is_told(number: int, error: Any) -> None:
    driver, doing = FakeDriver(number, error), ""

    def live() -> None:
        nonlocal doing
        for doing in _lives(driver):  # noqa: B007 (it is read where it fails)
            pass

    with pytest.raises((DeviceLost, DeviceOutOfMemory, RuntimeUnavailable)) as caught:
        live()
    name, _ = driver.calls[number]
    assert name in str(caught.value)
    assert len(driver.calls) == number + 1  # nothing is asked of a device that has failed
    expected = RuntimeUnavailable if doing == "open" else DeviceOutOfMemory if error == NO_MEMORY else DeviceLost
    assert type(caught.value) is expected


def test_machine_without_a_driver_says_so() -> None:
    with pytest.raises(RuntimeUnavailable, match="CUDA device 0 cannot be used: cuInit"):
        CudaDevice(0)
