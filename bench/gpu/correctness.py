"""Does each plan give the model's own answers in each precision? By the service's proof, and on more images.

In fp32 every gate and every prediction has to be the portable graph's, but for margins that rounding may turn; in fewer
bits nearly all have to, see `artifact.agreement`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artifact.agreement import Agreement
from artifact.manifest import Manifest, read_manifest
from artifact.preprocessing import Float32Array, UInt8Array
from service.engine.runtimes.base import Model, Precision, Runtime
from service.engine.runtimes.cuda.device import Device
from service.engine.runtimes.cuda.plan import ElementType, Plan
from service.engine.runtimes.cuda.runtime import Compile, CudaRuntime, MakePlans, make_plans
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.onnx import OnnxRuntime
from service.engine.runtimes.proof import Proof

PLANS: Mapping[str, slice] = {"lists": slice(0, 1), "images": slice(1, 2)}
"""Of those that `make_plans` makes: one launch a layer for listed images, and one program an image."""
_BATCH = 128
# Of the gates, in turns: as they fall, and with many and few open.
_OFFSETS = (0.0, 0.5, -0.5)


def only(plan: str) -> MakePlans:
    """Makes one plan alone, which then need not be the fastest."""

    def make(model: Model, element_type: ElementType, largest: int, device: Device) -> Sequence[Plan]:
        return make_plans(model, element_type, largest, device)[PLANS[plan]]

    return make


def prove(
    folder: Path,
    device: Device,
    compiled: Compile,
    precision: Precision,
    pixels: Mapping[str, UInt8Array],
    largest: int = _BATCH,
) -> dict[str, Any]:
    """What each plan shows in a precision; its problem is None where it is right.

    Args:
        folder: of an artifact.
        device: that runs it.
        compiled: compiles kernels.
        precision: of features.
        pixels: (N, side, side, 3) images to run besides the probes, by their kind.
        largest: batch.
    """
    manifest = read_manifest(folder)
    model = Model(folder, manifest, MachineCache([], manifest))
    proof, portable = Proof(model), OnnxRuntime(folder, manifest, "cpu")
    told: dict[str, Any] = {}
    for plan in PLANS:
        runtime = CudaRuntime(model, device, precision, compiled, largest, only(plan))
        try:
            probes = runtime.run(proof.probes.images, np.zeros(len(proof.probes), np.float32))
            together = proof.probes.agreement(probes, manifest.gating)
            told[plan] = {"problem": proof.problem(runtime), "probes together": _told(together, precision)}
            for kind, images in pixels.items():
                told[plan][kind] = _told(_agreement(runtime, portable.run, manifest, images), precision)
        finally:
            runtime.close()
    return told


def problems(told: Mapping[str, Any]) -> list[str]:
    """What is wrong, by plan."""
    found = []
    for plan, results in told.items():
        for kind, result in results.items():
            problem = result if kind == "problem" else result["problem"]
            if problem:
                found.append(f"{plan}, {'proof' if kind == 'problem' else kind}: {problem}")
    return found


def random_pixels(count: int, side: int) -> UInt8Array:
    """Images of coloured squares, each with a tint and a contrast of its own."""
    random, coarse = np.random.default_rng(2), max(1, side // 8)
    tints, contrasts = random.uniform(0, 255, (count, 1, 1, 3)), random.uniform(0, 100, (count, 1, 1, 1))
    squares = (tints + contrasts * random.standard_normal((count, 8, 8, 3))).clip(0, 255).astype(np.uint8)
    return squares.repeat(coarse, axis=1).repeat(coarse, axis=2)


def _agreement(
    runtime: Runtime, portable: Callable[[Float32Array, Float32Array], Any], manifest: Manifest, pixels: UInt8Array
) -> Agreement:
    agreement = Agreement()
    for part in _batches(pixels):
        images = manifest.preprocessing.normalise(part)
        offsets = np.resize(np.array(_OFFSETS, np.float32), len(part))
        ran = runtime.run(part, offsets)  # type: ignore[arg-type]  # the device takes pixels too
        agreement.compare("images", portable(images, offsets), ran, offsets, manifest.gating)
    return agreement


def _batches(pixels: UInt8Array) -> Iterator[UInt8Array]:
    for first in range(0, len(pixels), _BATCH):
        yield pixels[first : first + _BATCH]


def _told(agreement: Agreement, precision: Precision) -> dict[str, Any]:
    if precision == "fp32":
        problem = next(iter(agreement.problems), None)
        if problem is None and agreement.same_prediction < agreement.images - agreement.near_threshold:
            problem = f"{agreement.images - agreement.same_prediction} predictions differ"
    else:
        problem = agreement.low_precision_problem()
    return {
        "problem": problem,
        "images": agreement.images,
        "equal_gates": agreement.equal_gates,
        "same_path": agreement.same_path / max(1, agreement.images),
        "equal_predictions": agreement.equal_predictions,
        "margin_difference": agreement.margin_difference,
        "logit_difference": agreement.logit_difference,
    }
