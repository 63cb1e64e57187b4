"""A plan by itself on a device, as it is without a service around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from artifact.agreement import LogitsAndMargins
from artifact.preprocessing import Float32Array
from service.engine.runtimes.cuda.device import Call, Device, Handle
from service.engine.runtimes.cuda.plan import Address, Launch, Plan
from service.engine.runtimes.cuda.runtime import Compile


class Planned:
    """Has memory and a graph for batches of one size.

    Args:
        device: that runs it.
        plan: of a network.
        classes, gates: of the network.
        compiled: the kernels' machine code.
        batch: images; not more than the plan's largest.
    """

    def __init__(self, device: Device, plan: Plan, classes: int, gates: int, compiled: Compile, batch: int) -> None:
        self._device, self._plan, self._batch = device, plan, batch
        self._shapes = (batch, classes), (batch, gates)
        launches = list(plan.launches(batch))
        cubins = compiled([launch.kernel for launch in launches], device.architecture)
        self._functions = {kernel: device.load(cubin) for kernel, cubin in cubins.items()}
        self._memory = {"constants": device.allocate(plan.constants.size), "work": device.allocate(plan.work.size)}
        device.write(self._memory["constants"], plan.constants.content())
        self._stream, self._done = device.stream(), device.event()
        self.graph = self._recorded(launches)

    def give(self, images: Float32Array, offsets: Float32Array) -> None:
        """Write a whole batch into the device's memory: (N, 3, H, W) and (N,)."""
        ways = self._plan.doors
        self._write(ways.header, np.array([self._batch, 0], np.int32))
        self._write(ways.images, images)
        self.offset(offsets)

    def offset(self, offsets: Float32Array) -> None:
        """Write the gate offsets, (N,)."""
        self._write(self._plan.doors.offsets, offsets)

    def enqueue(self) -> None:
        """Have the batch run once more."""
        self._device.run(self.graph, self._stream)

    def wait(self) -> None:
        """Wait until all is done."""
        self._device.mark(self._done, self._stream)
        self._device.wait(self._done)

    def answers(self) -> LogitsAndMargins:
        """Logits and margins of the batch, after `wait`."""
        ways, logits, margins = self._plan.doors, *(np.zeros(shape, np.float32) for shape in self._shapes)
        for address, values in ((ways.logits, logits), (ways.margins, margins)):
            self._device.copy_out(values.ctypes.data, self._at(address), values.nbytes, self._stream)
        self.wait()
        return logits, margins

    def _recorded(self, launches: Sequence[Launch]) -> Handle:
        return self._device.record(
            Call(
                self._functions[launch.kernel],
                launch.programs,
                tuple(self._at(value) if isinstance(value, Address) else value for value in launch.arguments),
                tuple(kind for _, kind in launch.kernel.signature),
            )
            for launch in launches
        )

    def _write(self, address: Address, values: np.ndarray) -> None:
        self._device.write(self._at(address), values)

    def _at(self, address: Address) -> int:
        return self._memory[address.memory] + address.offset
