"""A device that fails for good as soon as a file is there, once: a kernel of it writes where there is no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from service.engine.runtimes.base import Model, Precision, Runtime
from service.engine.runtimes.cuda.cubins import compile_kernel
from service.engine.runtimes.cuda.device import Call, CudaDevice, Handle
from service.engine.runtimes.cuda.loading import loading_kernel
from service.engine.runtimes.cuda.runtime import Compile, CudaRuntime

TRAP = "TEST_GPU_TRAP"
"""The environment variable that names the file."""

# The kernel that loads images, with a header that says there is one.
_KERNEL = loading_kernel("fp16", side=32, channels=4, block=256)
_NOWHERE = 1 << 20


class TrappingDevice(CudaDevice):
    """See the module.

    Args:
        trap: the file, which is removed first.
    """

    def __init__(self, trap: Path) -> None:
        super().__init__(0)
        self._trap = trap

    def run(self, graph: Handle, stream: Handle) -> None:
        if self._trap.exists():
            self._trap.unlink()
            graph = self._failing_graph()
        super().run(graph, stream)

    def _failing_graph(self) -> Any:
        function = self.load(compile_kernel(_KERNEL, self.architecture))
        header = self.allocate(16)
        self.write(header, np.ones(4, np.int32))
        arguments = (_NOWHERE, _NOWHERE, header, _NOWHERE, _NOWHERE, _NOWHERE, _NOWHERE, 0)
        return self.record([Call(function, 1, arguments, tuple(kind for _, kind in _KERNEL.signature))])


def open_trapping(model: Model, precision: Precision, compiled: Compile, trap: Path) -> Runtime:
    """A model on such a device."""
    return CudaRuntime(model, TrappingDevice(trap), precision, compiled, 8)
