"""A CUDA device through its driver: memory, kernels, graphs of their launches, copies that run beside them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from service.engine.errors import DeviceLost, DeviceOutOfMemory, RuntimeUnavailable
from service.engine.runtimes.cuda.cubins import Cubin

Handle = Any
"""Of a stream, an event, a function or a graph; whose it is knows what it is."""


# Of what kernels are given; all else are addresses.
_KINDS: dict[str, Callable[[Any], Any]] = {"i32": ctypes.c_int32, "fp32": ctypes.c_float}


@dataclass(frozen=True)
class Call:
    """A launch of a function with what it is given.

    Attributes:
        function: of the device.
        programs: how many run it.
        arguments: addresses and numbers.
        types: of the arguments: "*..." for an address, "i32" or "fp32".
    """

    function: Handle
    programs: int
    arguments: tuple[int | float, ...]
    types: tuple[str, ...]


class Device(Protocol):
    """What the runtime needs of a device. All methods raise DeviceLost where it does not do what it should.

    Attributes:
        name: of its kind.
        architecture: such as 90 for sm_90.
        shared_bytes: most memory that the threads of a program may share, in bytes.
        processors: how many multiprocessors it has.
    """

    name: str
    architecture: int
    shared_bytes: int
    processors: int

    def allocate(self, size: int) -> int:
        """The address of so many bytes.

        Raises:
            DeviceOutOfMemory: there are not as many.
        """

    def pin(self, address: int, size: int) -> None:
        """Keep memory of this process in its place, so that the device can copy from and to it by itself."""

    def unpin(self, address: int) -> None:
        """Let it go."""

    def write(self, address: int, values: npt.NDArray[Any]) -> None:
        """Write into the device's memory, and wait for that."""

    def load(self, cubin: Cubin) -> Handle:
        """A function that calls can name."""

    def record(self, calls: Iterable[Call]) -> Handle:
        """A graph that makes these calls, one after the other."""

    def stream(self) -> Handle:
        """A queue of work; several run beside each other."""

    def event(self) -> Handle:
        """What can be waited for."""

    def mark(self, event: Handle, stream: Handle) -> None:
        """Have an event happen when what is in a stream now is done."""

    def after(self, event: Handle, stream: Handle) -> None:
        """Have what comes into a stream from now on wait for an event."""

    def wait(self, event: Handle) -> None:
        """Wait here."""

    def copy_in(self, to: int, host: int, size: int, stream: Handle) -> None:
        """Copy from this process."""

    def copy(self, to: int, source: int, size: int, stream: Handle) -> None:
        """Copy within the device."""

    def copy_out(self, host: int, source: int, size: int, stream: Handle) -> None:
        """Copy to this process."""

    def run(self, graph: Handle, stream: Handle) -> None:
        """Make the calls of a graph."""

    def forget(self, graph: Handle) -> None:
        """Give back what a graph takes."""

    def clear(self) -> None:
        """Give back all that has been allocated, pinned, loaded, recorded or made here."""


class CudaDevice(Device):
    """See `Device`. Safe to use from several threads.

    Args:
        ordinal: which of those that the driver shows.
        driver: `cuda.bindings.driver`.

    Raises:
        RuntimeUnavailable: there is no such device, or no driver for it.
    """

    def __init__(self, ordinal: int, driver: Any = None) -> None:
        self._driver = driver or _driver()
        self._made: list[tuple[str, Any]] = []  # and the driver's function that takes it back
        try:
            self._call("cuInit", 0)
            self._number = self._call("cuDeviceGet", ordinal)
            self.name = self._call("cuDeviceGetName", 128, self._number).split(b"\0")[0].decode()
            major, minor = (self._attribute(f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
            self.architecture = 10 * major + minor
            self.shared_bytes = self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
            self.processors = self._attribute("MULTIPROCESSOR_COUNT")
            waits = self._driver.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC  # a thread that waits leaves its core to others
            self._call("cuDevicePrimaryCtxSetFlags", self._number, int(waits))
            self._context = self._call("cuDevicePrimaryCtxRetain", self._number)
        except (DeviceLost, DeviceOutOfMemory) as error:
            raise RuntimeUnavailable(f"CUDA device {ordinal} cannot be used: {error}") from error

    def allocate(self, size: int) -> int:
        """See `Device`."""
        return int(self._make("cuMemFree", "cuMemAlloc", size))

    def pin(self, address: int, size: int) -> None:
        """See `Device`."""
        self._here("cuMemHostRegister", address, size, 0)
        self._made.append(("cuMemHostUnregister", address))

    def unpin(self, address: int) -> None:
        """See `Device`."""
        self._take_back("cuMemHostUnregister", address)

    def write(self, address: int, values: npt.NDArray[Any]) -> None:
        """See `Device`."""
        values = np.ascontiguousarray(values)
        self._here("cuMemcpyHtoD", address, values.ctypes.data, values.nbytes)
        # From memory that is not pinned the call may end before the copy (CUDA Driver API, "API synchronization
        # behavior"), and streams of ours do not wait for it.
        self._call("cuCtxSynchronize")

    def load(self, cubin: Cubin) -> Handle:
        """See `Device`."""
        module = self._make("cuModuleUnload", "cuModuleLoadData", cubin.code)
        function = self._call("cuModuleGetFunction", module, cubin.entry.encode())
        attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._call("cuFuncSetAttribute", function, attribute, cubin.shared_bytes)
        return function, cubin

    def record(self, calls: Iterable[Call]) -> Handle:
        """See `Device`."""
        stream = self.stream()
        self._call("cuStreamBeginCapture", stream, self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        for call in calls:
            self._launch(call, stream)
        graph = self._make("cuGraphDestroy", "cuStreamEndCapture", stream)
        ready = self._make("cuGraphExecDestroy", "cuGraphInstantiate", graph, 0)
        self._take_back("cuGraphDestroy", graph)
        self._take_back("cuStreamDestroy", stream)
        return ready

    def stream(self) -> Handle:
        """See `Device`."""
        return self._make("cuStreamDestroy", "cuStreamCreate", int(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING))

    def event(self) -> Handle:
        """See `Device`."""
        flags = self._driver.CUevent_flags
        kind = int(flags.CU_EVENT_BLOCKING_SYNC) | int(flags.CU_EVENT_DISABLE_TIMING)
        return self._make("cuEventDestroy", "cuEventCreate", kind)

    def mark(self, event: Handle, stream: Handle) -> None:
        """See `Device`."""
        self._here("cuEventRecord", event, stream)

    def after(self, event: Handle, stream: Handle) -> None:
        """See `Device`."""
        self._here("cuStreamWaitEvent", stream, event, 0)

    def wait(self, event: Handle) -> None:
        """See `Device`."""
        self._here("cuEventSynchronize", event)

    def copy_in(self, to: int, host: int, size: int, stream: Handle) -> None:
        """See `Device`."""
        self._here("cuMemcpyHtoDAsync", to, host, size, stream)

    def copy(self, to: int, source: int, size: int, stream: Handle) -> None:
        """See `Device`."""
        self._here("cuMemcpyDtoDAsync", to, source, size, stream)

    def copy_out(self, host: int, source: int, size: int, stream: Handle) -> None:
        """See `Device`."""
        self._here("cuMemcpyDtoHAsync", host, source, size, stream)

    def run(self, graph: Handle, stream: Handle) -> None:
        """See `Device`."""
        self._here("cuGraphLaunch", graph, stream)

    def forget(self, graph: Handle) -> None:
        """See `Device`."""
        self._take_back("cuGraphExecDestroy", graph)

    def clear(self) -> None:
        """See `Device`."""
        for takes_back, made in self._made[::-1]:
            self._take_back(takes_back, made)

    def _make(self, takes_back: str, name: str, *arguments: Any) -> Any:
        made = self._here(name, *arguments)
        self._made.append((takes_back, made))
        return made

    def _take_back(self, name: str, made: Any) -> None:
        self._here(name, made)
        self._made.remove((name, made))

    def _launch(self, call: Call, stream: Handle) -> None:
        function, cubin = call.function
        values = packed_arguments(call.arguments, call.types)
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        grid = (call.programs, 1, 1, cubin.threads, 1, 1, cubin.shared_bytes)
        self._call("cuLaunchKernel", function, *grid, stream, ctypes.addressof(addresses), 0)

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._call("cuDeviceGetAttribute", attribute, self._number))

    def _here(self, name: str, *arguments: Any) -> Any:
        """Call the driver from this thread, whichever it is."""
        self._call("cuCtxSetCurrent", self._context)
        return self._call(name, *arguments)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            error, *results = getattr(self._driver, name)(*arguments)
        except RuntimeError as missing:  # the driver's library is not there, or too old to have this
            raise DeviceLost(f"{name}: {missing}") from missing
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise DeviceOutOfMemory(f"{name}: the device has not so much memory left")
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise DeviceLost(f"{name}: {getattr(error, 'name', error)}")
        return results[0] if results else None


def packed_arguments(arguments: Sequence[int | float], types: Sequence[str]) -> list[Any]:
    """What a compiled kernel is given: its arguments, and two addresses of memory of which it needs none."""
    values = [_KINDS.get(kind, ctypes.c_void_p)(value) for value, kind in zip(arguments, types, strict=True)]
    return [*values, ctypes.c_void_p(), ctypes.c_void_p()]


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise RuntimeUnavailable("the cuda runtime needs cuda-bindings, which is not installed") from error
    return driver
