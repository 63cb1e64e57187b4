"""A gated network on a CUDA device: one graph for each batch size, by the plan that was measured to be the fastest.

A batch is copied to the device while the one before it runs, and nothing comes back but its answers.
"""

from __future__ import annotations

import logging
import mmap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ONNX_NAME
from artifact.preprocessing import Float32Array
from artifact.probes import read_probes
from service.engine.errors import DeviceOutOfMemory, RuntimeUnavailable
from service.engine.runtimes.base import Candidate, Model, Precision
from service.engine.runtimes.base import Device as DeviceName
from service.engine.runtimes.cuda.cubins import Cubin, kept_cubins
from service.engine.runtimes.cuda.device import Call, CudaDevice, Device, Handle
from service.engine.runtimes.cuda.image_plan import IMAGE_CHANNELS, ImagePlan
from service.engine.runtimes.cuda.list_plan import IMAGE_CHANNELS as LIST_CHANNELS
from service.engine.runtimes.cuda.list_plan import ListPlan
from service.engine.runtimes.cuda.network import read_network
from service.engine.runtimes.cuda.plan import Address, ElementType, Kernel, Launch, Plan
from service.engine.runtimes.onnx_file import verified_onnx_file
from service.engine.runtimes.portable_graph import UnknownGraph, read_portable_graph

_log = logging.getLogger(__name__)

LARGEST_BATCH = 128
# Batches on their way: one runs, and one is copied.
_SLOTS = 2
_ELEMENT_TYPES: dict[Precision, ElementType] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16"}
# Runs that are timed of each plan with each batch size, after one that is not.
_TIMED = 5

Compile = Callable[[Sequence[Kernel], int], dict[Kernel, Cubin]]
MakePlans = Callable[[Model, ElementType, int, Device], Sequence[Plan]]
Images = npt.NDArray[Any]
"""(N, side, side, 3) uint8 pixels, or (N, 3, side, side) fp32, normalised."""


def batch_sizes(largest: int) -> list[int]:
    """Those that have a graph: 1, 2, 4, ... and the largest."""
    return [*(1 << power for power in range((largest - 1).bit_length())), largest]


def make_plans(model: Model, element_type: ElementType, largest: int, device: Device) -> list[Plan]:
    """All plans that there are for a model.

    Raises:
        ArtifactError: the model's file is missing or damaged.
        UnknownGraph: the network has parts that no kernel is for.
    """
    manifest = model.manifest
    graph = read_portable_graph(verified_onnx_file(model.folder, manifest, ONNX_NAME), manifest)
    common = manifest.preprocessing, manifest.gate_threshold, element_type, largest
    plans: list[Plan] = [ListPlan(read_network(graph, LIST_CHANNELS), *common, device.shared_bytes)]
    with suppress(UnknownGraph):  # it is for small images alone
        plans.append(ImagePlan(read_network(graph, IMAGE_CHANNELS), *common, device.processors))
    return plans


@dataclass
class _Slot:
    """What one batch on its way has for itself.

    Attributes:
        staging: address on the device where its images come in.
        sent, answers: memory of this process: header and offsets, logits and margins.
        copied, done: events.
    """

    staging: int
    sent: npt.NDArray[np.uint8]
    answers: npt.NDArray[np.uint8]
    copied: Handle
    done: Handle


class CudaRuntime:
    """See `Runtime`. Images may be pixels as well, which the device normalises.

    Args:
        model: to run.
        device: that runs it.
        precision: of features.
        compiled: the kernels' machine code.
        largest: batch; half of it, or less, where the device has too little memory.
        make: all plans that the fastest is chosen from.

    Raises:
        ArtifactError: a file is missing or damaged.
        RuntimeUnavailable: the network has parts that no kernel is for, or does not fit into the device's memory.
        DeviceLost: the device fails.
    """

    device = "cuda"
    runs_batches = True
    candidates: tuple[Candidate, ...] = ()

    def __init__(
        self,
        model: Model,
        device: Device,
        precision: Precision,
        compiled: Compile,
        largest: int = LARGEST_BATCH,
        make: MakePlans | None = None,
    ) -> None:
        self.manifest, self.precision = model.manifest, precision
        self.name = f"Triton on {device.name}"
        self._device = device
        self._turn = Lock()
        probes = read_probes(model.folder, model.manifest).images
        while True:
            try:
                plans = (make or make_plans)(model, _ELEMENT_TYPES[precision], largest, device)
                self.largest, self._doors = largest, plans[0].doors
                self._reserve(plans)
                self._load(plans, compiled)
                self._graphs = self._fastest(plans, probes)
                return
            except UnknownGraph as error:
                raise RuntimeUnavailable(f"{model.folder / ONNX_NAME} cannot be run on a GPU: {error}") from error
            except DeviceOutOfMemory as error:
                device.clear()
                if largest == 1:
                    raise RuntimeUnavailable(f"not even one image fits into the memory of {device.name}") from error
                largest //= 2
                _log.warning("%s has too little memory: batches are of %d images at most", device.name, largest)

    def run(self, images: Images, gate_offset: Float32Array) -> LogitsAndMargins:
        """See `Runtime.run`."""
        answers = [
            self.run_parts([images[first : first + self.largest]], gate_offset[first : first + self.largest])
            for first in range(0, len(images), self.largest)
        ]
        logits, margins = zip(*answers, strict=True)
        return np.concatenate(logits), np.concatenate(margins)

    def run_parts(self, parts: Sequence[Images], gate_offset: Float32Array) -> LogitsAndMargins:
        """Run a batch whose images lie in several places, with no more images in all than `largest`.

        Args:
            parts: all pixels, or all normalised; copied by the device itself where they are pinned.
            gate_offset: (N,) of them all.

        Raises:
            DeviceLost: the device fails.
            ValueError: these are too many images, or not as many as offsets.
        """
        parts = [np.ascontiguousarray(part) for part in parts]
        batch = len(gate_offset)
        if sum(map(len, parts)) != batch or not 0 < batch <= self.largest:
            raise ValueError(f"{[*map(len, parts)]} images with {batch} offsets are no batch of 1 to {self.largest}")
        slot = self._slots.get()
        try:
            self._copy_in(slot, parts, gate_offset)
            with self._turn:
                self._enqueue(slot, batch, sum(part.nbytes for part in parts))
            self._device.wait(slot.done)
            return self._answers(slot, batch)
        finally:
            self._slots.put(slot)

    def pin(self, memory: npt.NDArray[np.uint8]) -> None:
        """See `DeviceRuntime`."""
        self._device.pin(memory.ctypes.data, memory.nbytes)

    def unpin(self, memory: npt.NDArray[np.uint8]) -> None:
        """See `DeviceRuntime`."""
        self._device.unpin(memory.ctypes.data)

    def close(self) -> None:
        """See `Closing`."""
        self._device.clear()

    def _reserve(self, plans: Sequence[Plan]) -> None:
        """All memory there will be: constants, one place to work for all plans, and what slots need."""
        device, doors = self._device, self._doors
        answered = doors.margins.offset + 4 * self.largest * max(1, len(self.manifest.gated_indices))
        image_bytes = 12 * self.manifest.input_size**2
        self._constants = [device.allocate(plan.constants.size) for plan in plans]
        self._work = device.allocate(max(plan.work.size for plan in plans))
        self._copying, self._computing = device.stream(), device.stream()
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(_SLOTS):
            staging = device.allocate(doors.images.offset + self.largest * image_bytes)
            sent, answers = _pages(doors.images.offset), _pages(answered - doors.logits.offset)
            for memory in (sent, answers):
                self.pin(memory)
            self._slots.put(_Slot(staging, sent, answers, device.event(), device.event()))

    def _load(self, plans: Sequence[Plan], compiled: Compile) -> None:
        kernels = [
            launch.kernel for plan in plans for size in batch_sizes(self.largest) for launch in plan.launches(size)
        ]
        cubins = compiled(kernels, self._device.architecture)
        self._functions = {kernel: self._device.load(cubin) for kernel, cubin in cubins.items()}
        for plan, address in zip(plans, self._constants, strict=True):
            self._device.write(address, plan.constants.content())

    def _fastest(self, plans: Sequence[Plan], probes: Float32Array) -> dict[int, Handle]:
        """For each batch size the graph that takes the least time with the probes, whose gates are as they fall."""
        device, doors = self._device, self._doors
        images = np.resize(probes, (self.largest, *probes.shape[1:]))
        for address, values in ((doors.offsets, np.zeros(self.largest, np.float32)), (doors.images, images)):
            device.write(self._work + address.offset, values)
        chosen = {}
        for size in batch_sizes(self.largest):
            graphs = [self._record(plan, number, size) for number, plan in enumerate(plans)]
            times = [self._seconds(graph, size) for graph in graphs] if len(graphs) > 1 else [0.0]
            best = times.index(min(times))
            chosen[size] = graphs.pop(best)
            for slower in graphs:
                device.forget(slower)
            _log.debug("batches of %d are run by %s", size, type(plans[best]).__name__)
        return chosen

    def _record(self, plan: Plan, number: int, batch: int) -> Handle:
        def address(value: Address | int | float) -> int | float:
            if isinstance(value, Address):
                return value.offset + (self._work if value.memory == "work" else self._constants[number])
            return value

        def call(launch: Launch) -> Call:
            arguments = tuple(address(value) for value in launch.arguments)
            types = tuple(kind for _, kind in launch.kernel.signature)
            return Call(self._functions[launch.kernel], launch.programs, arguments, types)

        return self._device.record([call(launch) for launch in plan.launches(batch)])

    def _seconds(self, graph: Handle, batch: int) -> float:
        device, done = self._device, self._device.event()
        device.write(self._work + self._doors.header.offset, np.array([batch, 0], np.int32))
        taken = []
        for _ in range(1 + _TIMED):
            began = time.perf_counter()
            device.run(graph, self._computing)
            device.mark(done, self._computing)
            device.wait(done)
            taken.append(time.perf_counter() - began)
        return min(taken[1:])

    def _copy_in(self, slot: _Slot, parts: Sequence[Images], gate_offset: Float32Array) -> None:
        device, images = self._device, slot.staging + self._doors.images.offset
        header, offsets = self._doors.header.offset, self._doors.offsets.offset
        pixels = parts[0].dtype == np.uint8
        slot.sent[header : header + 8].view(np.int32)[:] = len(gate_offset), pixels
        slot.sent[offsets : offsets + gate_offset.nbytes].view(np.float32)[:] = gate_offset
        device.copy_in(slot.staging, slot.sent.ctypes.data, offsets + gate_offset.nbytes, self._copying)
        for part in parts:
            device.copy_in(images, part.ctypes.data, part.nbytes, self._copying)
            images += part.nbytes
        device.mark(slot.copied, self._copying)

    def _enqueue(self, slot: _Slot, batch: int, image_bytes: int) -> None:
        device, stream = self._device, self._computing
        size = next(size for size in self._graphs if size >= batch)
        device.after(slot.copied, stream)
        device.copy(self._work, slot.staging, self._doors.images.offset + image_bytes, stream)
        device.run(self._graphs[size], stream)
        logits = self._doors.logits.offset
        device.copy_out(slot.answers.ctypes.data, self._work + logits, slot.answers.nbytes, stream)
        device.mark(slot.done, stream)

    def _answers(self, slot: _Slot, batch: int) -> LogitsAndMargins:
        classes, gates = len(self.manifest.labels), len(self.manifest.gated_indices)
        margins_at = self._doors.margins.offset - self._doors.logits.offset
        logits = slot.answers[: 4 * batch * classes].view(np.float32).reshape(batch, classes)
        margins = slot.answers[margins_at : margins_at + 4 * batch * gates].view(np.float32).reshape(batch, gates)
        return logits.copy(), margins.copy()


def _pages(size: int) -> npt.NDArray[np.uint8]:
    """Memory in pages of its own: a page can be pinned once."""
    return np.frombuffer(mmap.mmap(-1, size), np.uint8)


def open_model(model: Model, _: DeviceName, precision: Precision) -> CudaRuntime:
    """See `RuntimeKind.open`: on the first device that this process may see."""
    return CudaRuntime(model, CudaDevice(0), precision, partial(kept_cubins, cache=model.cache))
