"""Candidates whose speed and answers a test decides, to see which of them is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from artifact.agreement import LogitsAndMargins
from artifact.preprocessing import Float32Array
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Candidate, Device, Model, Precision, Runtime, RuntimeName
from service.engine.runtimes.registry import RuntimeKind
from service.engine.runtimes.selection import open_runtime
from tests.service.engine.queueing.desk import Clock
from tests.service.engine.runtimes.artifacts import Exported

Change = Callable[[Float32Array, Float32Array, Float32Array], LogitsAndMargins]
"""From the right logits and margins and the gate offsets to what a runtime says instead."""

ONNX, COMPILED, TORCHSCRIPT = Candidate("onnx", "fp32"), Candidate("compiled", "fp32"), Candidate("torchscript", "fp32")
CUDA = Candidate("cuda", "fp32")
OPENVINO, OPENVINO_BF16 = Candidate("openvino", "fp32"), Candidate("openvino", "bf16")
COMPILED_BF16 = Candidate("compiled", "bf16")
FP32 = (ONNX, COMPILED, OPENVINO)


class FakeRuntime:
    """Says what the portable graph says, or something else, and takes as long as it is told to."""

    runs_batches = False

    def __init__(self, lab: Lab, candidate: Candidate, device: Device, seconds: float, change: Change | None) -> None:
        self.device: str = device
        self.name = f"{candidate.runtime} 1"
        self.precision: Precision = candidate.precision
        self.manifest = lab.exported.manifest
        self.candidates: tuple[Candidate, ...] = ()
        self._lab, self._seconds, self._change = lab, seconds, change
        self.runs = 0

    def run(self, images: Float32Array, gate_offset: Float32Array) -> LogitsAndMargins:
        self.runs += 1
        self._lab.clock.now += self._seconds
        logits, margins = self._lab.exported.portable.run(images, gate_offset)
        return self._change(logits, margins, gate_offset) if self._change else (logits, margins)


class Lab:
    """What opening a candidate gives, on a clock that only runs of runtimes move.

    Attributes:
        opened: every candidate that was opened, in order.
    """

    def __init__(self, exported: Exported, cache_folder: Path) -> None:
        self.exported = exported
        self.cache_folder = cache_folder
        self.clock = Clock()
        self.opened: list[Candidate] = []
        self._offers: dict[Candidate, tuple[float, Change | None] | Exception] = {}
        for candidate in (*FP32, OPENVINO_BF16, TORCHSCRIPT):
            self.offer(candidate, milliseconds=10)

    def offer(self, candidate: Candidate, milliseconds: float = 1, change: Change | None = None) -> None:
        """Opening the candidate gives a runtime that takes so long."""
        self._offers[candidate] = milliseconds / 1000, change

    def withdraw(self, candidate: Candidate, error: Exception) -> None:
        """Opening the candidate fails."""
        self._offers[candidate] = error

    @property
    def open(self) -> Callable[[RuntimeKind, Model, Device, Precision], Runtime]:
        """Stands in for `RuntimeKind.open`."""
        return lambda kind, _, device, precision: self._open(Candidate(kind.name, precision), device)

    def _open(self, candidate: Candidate, device: Device) -> Runtime:
        self.opened.append(candidate)
        offer = self._offers.get(candidate, RuntimeUnavailable("not in this lab"))
        if isinstance(offer, Exception):
            raise offer
        return FakeRuntime(self, candidate, device, *offer)

    def choose(
        self,
        precision: Precision = "fp32",
        runtime: RuntimeName = "auto",
        folder: Path | None = None,
        device: Device = "cpu",
    ) -> Runtime:
        """Open the model anew."""
        self.opened.clear()
        cache = self.cache_folder if folder is None else None
        return open_runtime(folder or self.exported.folder, runtime, device, precision, cache)

    @property
    def selection_file(self) -> Path:
        (file,) = self.cache_folder.rglob("selection-*")
        return file


def chosen(runtime: Runtime) -> tuple[str, str]:
    """Library and precision of what was opened."""
    return runtime.name.split()[0], runtime.precision


def tried(runtime: Runtime) -> dict[tuple[str, str], Candidate]:
    """What it was chosen from."""
    return {(candidate.runtime, candidate.precision): candidate for candidate in runtime.candidates}


def logits_off(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits + np.float32(0.1), margins


def gates_off(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits, -margins


def nan(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits * np.float32(np.nan), margins


def too_few_margins(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits, margins[:, :-1]


def raises(*_: Float32Array) -> LogitsAndMargins:
    raise ValueError("out of its depth")


def off_when_forced(wanted: float) -> Change:
    """Wrong only where the gates of an image are forced open, or closed."""

    def change(logits: Float32Array, margins: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        wrong = np.sign(offsets) == wanted
        return logits + wrong[:, None].astype(np.float32), margins

    return change


def off_in_mixed_batches(logits: Float32Array, margins: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
    return (logits[::-1], margins) if len(set(offsets.tolist())) > 1 else (logits, margins)


def raises_when_forced(logits: Float32Array, margins: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
    if offsets.any():
        raise ValueError("out of its depth")
    return logits, margins
