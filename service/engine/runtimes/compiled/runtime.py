"""The network as machine code made for it on this processor: nothing is done for a skipped block but to decide so."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ALWAYS, INT8_NAME, NEVER, ONNX_NAME, Manifest
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Candidate, Device, Model, Precision
from service.engine.runtimes.compiled.executable import ALIGNMENT, Executable
from service.engine.runtimes.compiled.processor import (
    NAME,
    MachineCode,
    compiled_code,
    host_vector_unit,
    require,
)
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.onnx_file import verified_onnx_file

if TYPE_CHECKING:  # its packages need not be installed
    from service.engine.runtimes.compiled.program import Program

_log = logging.getLogger(__name__)

_ENTRY = "classify"


class CompiledRuntime:
    """One program for all threads, with scratch memory for each run at a time.

    Args:
        folder: of the artifact.
        manifest: of the model.
        cache: holds the program after it was made once.
        precision: of the convolutions.

    Raises:
        ArtifactError: an ONNX file that is needed is missing or damaged.
        RuntimeUnavailable: llvmlite is not installed, the processor has no instructions for the precision, or the
            network has parts that cannot be compiled.
    """

    device = "cpu"
    runs_batches = False
    candidates: tuple[Candidate, ...] = ()

    def __init__(self, folder: Path, manifest: Manifest, cache: MachineCache, precision: Precision = "fp32") -> None:
        require(precision)
        self.manifest = manifest
        self.precision = precision
        self.name = NAME
        # Checked where they are not read as well: whether a damaged model is refused must not depend on what was kept.
        files = onnx_files(folder, manifest, precision)
        self._scratches: list[Float32Array] = []
        file = f"compiled-{precision}.bin"
        if not self._load_kept(cache, file):
            program = _build(files, manifest, precision)
            self._load(program)
            cache.write(file, program.to_bytes())

    def _load_kept(self, cache: MachineCache, file: str) -> bool:
        """Load the program that was made before and run it once; whether there is one that can be trusted.

        Code that was made for another processor, or is damaged in spite of its digest, may end the process. That is
        remembered, and the next process makes the program anew.
        """
        with cache.trial(file) as ended:
            if ended:
                _log.warning("the kept %s has ended the process that ran it; it will be made again", file)
                return False
            program = _kept(cache, file)
            if program is None:
                return False
            self._load(program)
            image = np.zeros((1, 3, self.manifest.input_size, self.manifest.input_size), np.float32)
            for offset in (ALWAYS, NEVER):  # so that every kernel is run
                self.run(image, np.full(1, offset, np.float32))
        return True

    def _load(self, program: Executable) -> None:
        manifest = self.manifest
        if (program.logits, program.margins) != (len(manifest.labels), len(manifest.gated_indices)):
            raise RuntimeUnavailable(f"the network has {program.logits} classes for {len(manifest.labels)} labels")
        self._scratch_size = program.scratch_size
        self._code = MachineCode(program.code)
        self._weights = _aligned(program.weights)
        pointer = ctypes.c_void_p
        function = ctypes.CFUNCTYPE(None, pointer, ctypes.c_float, *[pointer] * 4)
        self._classify = function(self._code.address(_ENTRY))

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        side = self.manifest.input_size
        if images.shape != (len(gate_offset), 3, side, side):  # what is beyond them would be read
            raise ValueError(f"images of shape {images.shape} for {len(gate_offset)} gate offsets")
        images = np.ascontiguousarray(images, np.float32)
        logits = np.empty((len(images), len(self.manifest.labels)), np.float32)
        margins = np.empty((len(images), len(self.manifest.gated_indices)), np.float32)
        try:
            scratch = self._scratches.pop()
        except IndexError:  # all are in use: to look first and then take would be two steps
            scratch = _aligned(np.zeros(self._scratch_size, np.float32))
        for row, offset in enumerate(gate_offset.tolist()):
            self._classify(
                _address(images[row]),
                offset,
                _address(self._weights),
                _address(scratch),
                _address(logits[row]),
                _address(margins[row]),
            )
        self._scratches.append(scratch)
        return logits, margins


def open_model(model: Model, _: Device, precision: Precision) -> CompiledRuntime:
    """See `RuntimeKind.open`."""
    return CompiledRuntime(model.folder, model.manifest, model.cache, precision)


def _kept(cache: MachineCache, file: str) -> Executable | None:
    """The program, if it was made before and can be trusted to be one."""
    content = cache.read(file)
    if content is None:
        return None
    try:
        return Executable.from_bytes(content)
    except ValueError as error:
        _log.warning("%s; it will be made again", error)
        return None


def _address(array: Float32Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _aligned(values: Float32Array) -> Float32Array:
    """A copy that begins where the program expects it."""
    room = np.empty(len(values) + ALIGNMENT // 4, np.float32)
    first = -_address(room) % ALIGNMENT // 4
    copy = room[first : first + len(values)]
    copy[:] = values
    return copy


def onnx_files(folder: Path, manifest: Manifest, precision: Precision) -> list[Path]:
    """The portable graph, and for int8 the int8 graph.

    Raises:
        ArtifactError: one is missing or damaged.
    """
    names = [ONNX_NAME, INT8_NAME] if precision == "int8" else [ONNX_NAME]
    return [verified_onnx_file(folder, manifest, name) for name in names]


def lowered(files: Sequence[Path], manifest: Manifest, precision: Precision) -> Program:
    """The network of `onnx_files` as a program in LLVM's language, for this processor.

    Raises:
        RuntimeUnavailable: a package is not installed, or the network has parts that cannot be compiled.
    """
    # The onnx package is needed to make the program, not to run it.
    try:
        from service.engine.runtimes.compiled.element_type import ELEMENT_TYPES
        from service.engine.runtimes.compiled.layers import FloatLayers, Int8Layers, Layers
        from service.engine.runtimes.compiled.lowering import lower_network
        from service.engine.runtimes.int8_graph import read_int8_graph
        from service.engine.runtimes.portable_graph import UnknownGraph, read_portable_graph
    except ImportError as error:
        raise RuntimeUnavailable(f"the compiled runtime needs {error.name}, which is not installed") from error

    try:
        graph = read_portable_graph(files[0], manifest)
        layers: Layers = (
            Int8Layers(graph.weights, read_int8_graph(files[1]))
            if precision == "int8"
            else FloatLayers(graph.weights, ELEMENT_TYPES[precision])
        )
        return lower_network(graph, manifest.gate_threshold, host_vector_unit(), layers)
    except UnknownGraph as error:
        raise RuntimeUnavailable(f"{files[0]} cannot be compiled: {error}") from error


def _build(files: Sequence[Path], manifest: Manifest, precision: Precision) -> Executable:
    program = lowered(files, manifest, precision)
    code = compiled_code(str(program.module))
    return Executable(program.scratch_size, program.logits_count, program.margins_count, code, program.weights())
