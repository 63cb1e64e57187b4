"""ONNX Runtime with the graph rebuilt for this processor: the fastest way in fp32 on x86."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ONNX_NAME, Manifest
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Candidate, Precision
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.onnx import open_session, run_one_by_one
from service.engine.runtimes.onnx_file import verified_onnx_file

_FILE = "blocked.onnx"


class BlockedRuntime:
    """One session for all threads; each run stays on its caller's thread.

    Its graph is for single images: measured on a CPU, gathering the open images of a batch costs what it gains.

    Args:
        folder: of the artifact.
        manifest: of the model.
        cache: holds the graph after it was made once.
    """

    device = "cpu"
    precision: Precision = "fp32"
    runs_batches = False
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, folder: Path, manifest: Manifest, cache: MachineCache) -> None:
        self.manifest = manifest
        self.name = f"onnxruntime {onnxruntime.__version__}, blocked layout"
        # Checked where it is not read as well: whether a damaged model is refused must not depend on what was kept.
        path = verified_onnx_file(folder, manifest, ONNX_NAME)
        kept = cache.read(_FILE)
        model = _build(path, manifest) if kept is None else kept
        # It is optimised already; what is left to the basic level is to check it.
        self._session = open_session(model, optimisation="ORT_ENABLE_BASIC")
        if kept is None:
            cache.write(_FILE, model)

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        return run_one_by_one(self._session, images, gate_offset)


def _build(path: Path, manifest: Manifest) -> bytes:
    # The onnx package is needed to make the graph, not to run it.
    try:
        from service.engine.runtimes.blocked_graph import blocked_graph
        from service.engine.runtimes.portable_graph import UnknownGraph, read_portable_graph
    except ImportError as error:
        raise RuntimeUnavailable(f"the blocked runtime needs {error.name}, which is not installed") from error

    try:
        model = blocked_graph(read_portable_graph(path, manifest), manifest.gate_threshold)
    except UnknownGraph as error:
        raise RuntimeUnavailable(f"no blocked graph can be made of {path}: {error}") from error
    return bytes(model.SerializeToString())
