"""The process of a device that is Triton's interpreter: what `service.images.device_main` is with a GPU."""

from __future__ import annotations

from pathlib import Path

from service.engine.devices.talk import Opening
from service.engine.runtimes.base import Model, Runtime
from service.engine.runtimes.cascade import CascadeRuntime
from service.engine.runtimes.cuda.runtime import CudaRuntime
from service.engine.runtimes.machine_cache import MachineCache
from service.images.device_main import main
from tests.service.engine.runtimes.cuda.interpreter import InterpretedDevice, interpreted, lists


def open_model(asked: Opening) -> Runtime:
    """In fp32, whatever is asked for."""
    model = Model(Path(asked.folder), asked.manifest, MachineCache([], asked.manifest))
    device = InterpretedDevice()
    networks = [CudaRuntime(each, device, "fp32", interpreted, 8, lists) for each in model.members() or [model]]
    return CascadeRuntime(asked.manifest, networks) if model.manifest.members else networks[0]


if __name__ == "__main__":
    main(open_model)
