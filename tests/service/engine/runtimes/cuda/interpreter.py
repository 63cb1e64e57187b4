"""A device whose memory is this process's, and whose kernels Triton's interpreter runs, at once."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from service.engine.errors import DeviceOutOfMemory
from service.engine.runtimes.base import Model
from service.engine.runtimes.cuda import image_kernel, kernels
from service.engine.runtimes.cuda.device import Call, Device, Handle
from service.engine.runtimes.cuda.plan import ElementType, Kernel, Plan
from service.engine.runtimes.cuda.runtime import make_plans

_TYPES = {
    "*fp32": torch.float32,
    "*fp16": torch.float16,
    "*bf16": torch.bfloat16,
    "*i32": torch.int32,
    "*u8": torch.uint8,
}


# A graph takes memory of the device too.
GRAPH_BYTES = 1000


class InterpretedDevice(Device):
    """See `Device`.

    Args:
        memory: that it has, in bytes.

    Attributes:
        allocated: bytes at each address.
        graphs: recorded and not forgotten.
        launches: functions and numbers of programs, in order.
    """

    name, architecture, shared_bytes, processors = "the interpreter", 90, 232_448, 1

    def __init__(self, memory: int = 1 << 40) -> None:
        self.left = memory
        self.allocated: dict[int, torch.Tensor] = {}
        self.pinned: dict[int, set[int]] = {}
        self.launches: list[tuple[str, int]] = []
        self.graphs = 0

    def allocate(self, size: int) -> int:
        self._give(size)
        # What was there before is no number, which shows where something is read that was not written.
        memory = torch.full((size + 256,), 0xFF, dtype=torch.uint8)
        address = -(-memory.data_ptr() // 256) * 256
        self.allocated[address] = memory[address - memory.data_ptr() :][:size]
        return address

    def _give(self, size: int) -> None:
        if size > self.left:
            raise DeviceOutOfMemory("the device has not so much memory left")
        self.left -= size

    def pin(self, address: int, size: int) -> None:
        # A page can be registered once.
        pages = set(range(address // mmap.PAGESIZE, -(-(address + size) // mmap.PAGESIZE)))
        assert not any(pages & others for others in self.pinned.values())
        self.pinned[address] = pages

    def unpin(self, address: int) -> None:
        del self.pinned[address]

    def write(self, address: int, values: np.ndarray[Any, Any]) -> None:
        values = np.ascontiguousarray(values)
        self.copy(address, values.ctypes.data, values.nbytes, None)

    def load(self, cubin: Any) -> Handle:
        return cubin

    def record(self, calls: Iterable[Call]) -> Handle:
        self._give(GRAPH_BYTES)
        self.graphs += 1
        return list(calls)

    def forget(self, graph: Handle) -> None:  # noqa: ARG002 (all are alike)
        self.graphs -= 1
        self.left += GRAPH_BYTES

    def clear(self) -> None:
        self.left += sum(map(len, self.allocated.values())) + self.graphs * GRAPH_BYTES
        self.graphs = 0
        self.allocated.clear()
        self.pinned.clear()

    def stream(self) -> Handle:
        return None

    event = stream

    def mark(self, event: Handle, stream: Handle) -> None:
        pass

    after = mark

    def wait(self, event: Handle) -> None:
        pass

    def copy(self, to: int, source: int, size: int, stream: Handle) -> None:  # noqa: ARG002 (there are none)
        ctypes.memmove(to, source, size)

    copy_in = copy_out = copy

    def run(self, graph: Sequence[Call], stream: Handle) -> None:  # noqa: ARG002 (there are none)
        for call in graph:
            kernel: Kernel = call.function
            self.launches.append((kernel.function, call.programs))
            arguments = [
                self._tensor(int(value), kind) if kind in _TYPES else value
                for value, kind in zip(call.arguments, call.types, strict=True)
            ]
            names = [name for name, _ in kernel.signature]
            function = getattr(image_kernel, kernel.function, None) or getattr(kernels, kernel.function)
            function[(call.programs,)](**dict(zip(names, arguments, strict=True)), **dict(kernel.constants))

    def _tensor(self, address: int, kind: str) -> torch.Tensor:
        for start, memory in self.allocated.items():
            if start <= address < start + len(memory):
                rest = memory[address - start :]
                size = _TYPES[kind].itemsize
                return rest[: len(rest) // size * size].view(_TYPES[kind])
        raise ValueError(f"there is no memory at {address}")


def interpreted(kernels_: Sequence[Kernel], _: int) -> dict[Kernel, Any]:
    """In the place of machine code: the kernels themselves."""
    return {kernel: kernel for kernel in kernels_}


def lists(model: Model, element_type: ElementType, largest: int, device: Device) -> Sequence[Plan]:
    """The plan that works with lists, alone: there is no need to measure it."""
    return make_plans(model, element_type, largest, device)[:1]
