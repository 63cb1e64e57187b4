"""The runtimes there are. To add one, write its module and enter it in `RUNTIMES` and in `RuntimeName`.

Its module has a function `open_model`, see `RuntimeKind.open`. It is imported when the runtime is opened, not before: a
serving install has only some of the libraries, and those that are not used cost memory and time to start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from service.engine.runtimes.base import PRECISIONS, Device, Model, Precision, Runtime, RuntimeName
from service.engine.runtimes.cascade import CascadeRuntime


@dataclass(frozen=True)
class RuntimeKind:
    """One way to run a model. Those for GPUs are tried in the order in which they stand here.

    Attributes:
        name: to ask for it.
        module: where it is.
        devices: it runs on, "cpu" or "cuda".
        precisions: it can run in, from the highest down.
        automatic: whether it may serve without being asked for by name.
        takes_any_graph: whether it runs the one graph of a cascade; otherwise it runs the networks of that in turn.
    """

    name: RuntimeName
    module: str
    devices: tuple[Device, ...]
    precisions: tuple[Precision, ...]
    automatic: bool = True
    takes_any_graph: bool = False

    def open(self, model: Model, device: Device, precision: Precision) -> Runtime:
        """Import it and open the model.

        Args:
            model: to run.
            device: one of `devices`, or "auto", which takes CUDA where it works, else the CPU.
            precision: one of `precisions`.

        Raises:
            ArtifactError: a file that it needs is missing or damaged.
            RuntimeUnavailable: its library or the device is not there, or it cannot run this model.
        """
        open_model: Callable[[Model, Device, Precision], Runtime] = import_module(self.module).open_model
        if self.takes_any_graph or not model.manifest.members:
            return open_model(model, device, precision)
        return CascadeRuntime(model.manifest, [open_model(each, device, precision) for each in model.members()])

    def allowed(self, lowest: Precision) -> tuple[Precision, ...]:
        """Its precisions that are not below `lowest`."""
        return tuple(each for each in self.precisions if PRECISIONS.index(each) <= PRECISIONS.index(lowest))


_HERE = "service.engine.runtimes"
_KINDS = (
    RuntimeKind("cuda", f"{_HERE}.cuda.runtime", ("cuda",), ("fp32", "fp16", "bf16")),
    RuntimeKind("onnx", f"{_HERE}.onnx", ("cpu", "cuda"), ("fp32",), takes_any_graph=True),
    RuntimeKind("compiled", f"{_HERE}.compiled.runtime", ("cpu",), ("fp32", "bf16", "int8")),
    RuntimeKind("openvino", f"{_HERE}.openvino", ("cpu",), ("fp32", "bf16")),
    RuntimeKind("int8", f"{_HERE}.int8", ("cpu",), ("int8",)),
    RuntimeKind(
        "torchscript", f"{_HERE}.torchscript", ("cpu", "cuda"), ("fp32",), automatic=False, takes_any_graph=True
    ),
)
RUNTIMES = {kind.name: kind for kind in _KINDS}
