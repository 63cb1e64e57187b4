"""OpenVINO: blocks as small models, run in turn as gates decide. It has bf16 kernels, which ONNX Runtime has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ONNX_NAME, Manifest
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Candidate, Device, Model, Precision
from service.engine.runtimes.onnx_file import verified_onnx_file

try:
    import openvino

    from service.engine.runtimes.openvino_graph import Chain, ChainBuilder, Gate, Part, core
    from service.engine.runtimes.portable_graph import UnknownGraph, read_portable_graph
except ImportError as error:
    raise RuntimeUnavailable(f"the openvino runtime needs {error.name}, which is not installed") from error


class OpenVinoRuntime:
    """A chain of compiled models; every thread that runs it has requests, and so buffers, of its own.

    A gate is open where margin > gate_threshold - gate_offset.

    Args:
        folder: of the artifact.
        manifest: of the model.
        precision: of the convolutions.
    """

    device = "cpu"
    runs_batches = False
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, folder: Path, manifest: Manifest, precision: Precision) -> None:
        self.manifest = manifest
        self.precision = precision
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        if precision == "bf16" and "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeUnavailable("this processor has no bf16 arithmetic")
        path = verified_onnx_file(folder, manifest, ONNX_NAME)
        try:
            graph = read_portable_graph(path, manifest)
            self._chain = ChainBuilder(graph, precision).build()
        except (RuntimeError, UnknownGraph) as error:
            raise RuntimeUnavailable(f"OpenVINO cannot open {path}: {error}") from error
        self._idle: list[_BoundChain] = []

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        limits = np.float32(self.manifest.gate_threshold) - gate_offset
        with self._bound() as chain:
            answers = [chain.run(images[row], limits[row]) for row in range(len(images))]
        return np.stack([logits for logits, _ in answers]), np.stack([margins for _, margins in answers])

    @contextmanager
    def _bound(self) -> Iterator[_BoundChain]:
        """Requests nobody else is using; list.pop and list.append are atomic."""
        try:
            chain = self._idle.pop()
        except IndexError:
            chain = _BoundChain(self._chain)
        yield chain
        self._idle.append(chain)


def open_model(model: Model, _: Device, precision: Precision) -> OpenVinoRuntime:
    """See `RuntimeKind.open`."""
    return OpenVinoRuntime(model.folder, model.manifest, precision)


class _BoundPart:
    """The requests of one part with their buffers."""

    def __init__(self, part: Part) -> None:
        self.body = part.body.create_infer_request()
        self.features = self.body.get_output_tensor()
        self._pool = part.pool.create_infer_request()
        self._pool.set_input_tensor(self.features)
        self.pooled: Float32Array = self._pool.get_output_tensor().data[0]

    def run(self) -> None:
        """Fill `features` and `pooled`."""
        _infer(self.body)
        _infer(self._pool)


class _BoundChain:
    """The requests of the whole network, for one thread at a time."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._stem = _BoundPart(chain.stem)
        self._image: Float32Array = self._stem.body.get_input_tensor().data[0]
        self._steps: list[tuple[_BoundPart, _BoundPart | None, Gate | None]] = [
            (_BoundPart(step.executed), _BoundPart(step.skipped) if step.skipped else None, step.gate)
            for step in chain.steps
        ]

    def run(self, image: Float32Array, limit: np.float32) -> LogitsAndMargins:
        """Classify an image (3, H, W), opening gates whose margin is above `limit`; return (classes,) and (G,)."""
        self._image[:] = image
        self._stem.run()
        last = self._stem
        margins = []
        for executed, skipped, gate in self._steps:
            part: _BoundPart | None = executed
            if gate is not None:
                margin = gate.margin(last.pooled)
                margins.append(margin)
                part = executed if margin > limit else skipped
            if part is not None:
                part.body.set_input_tensor(last.features)
                part.run()
                last = part
        logits = self._chain.classifier_weight @ last.pooled + self._chain.classifier_bias
        return logits, np.array(margins, np.float32)


def _infer(request: openvino.InferRequest) -> None:
    """Run a request on the tensors it is bound to, on this thread.

    `InferRequest.infer` would first sort its arguments and then wrap the outputs, which takes as long as a small block.
    """
    super(openvino.InferRequest, request).infer({}, share_outputs=True, decode_strings=False)
