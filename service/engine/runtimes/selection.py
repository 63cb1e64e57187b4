"""Which runtime serves a model on this machine: the one asked for, or the fastest, found once and remembered.

Whichever it is, it has to prove itself first, see `service.engine.runtimes.proof`.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from artifact.manifest import ArtifactError, Manifest, read_manifest
from artifact.probes import Probes
from service.engine.errors import DeviceLost, RuntimeUnavailable
from service.engine.nvidia_driver import made_for_gpus
from service.engine.runtimes.base import PRECISIONS, Candidate, Closing, Device, Model, Precision, Runtime, RuntimeName
from service.engine.runtimes.machine_cache import machine_cache
from service.engine.runtimes.proof import Proof
from service.engine.runtimes.registry import RUNTIMES, RuntimeKind

_log = logging.getLogger(__name__)

_SECONDS_EACH = 0.25
_CANDIDATES = TypeAdapter(list[Candidate])


def open_runtime(
    folder: Path,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
    cache_folder: Path | None = None,
) -> Runtime:
    """Open the artifact in `folder`.

    Args:
        folder: of the artifact.
        runtime: how to run it; "auto" takes the fastest that proves right on this machine.
        device: "auto" takes CUDA where it works, else the CPU.
        precision: the lowest allowed.
        cache_folder: where to keep what is made for this machine; by default beside the model, or in the user's cache.

    Raises:
        ArtifactError: the artifact is missing or damaged.
        RuntimeUnavailable: the library or the device is not there, cannot run this model, or gives other answers than
            the trained network.
    """
    manifest = read_manifest(folder)
    model = Model(folder, manifest, machine_cache(folder, manifest, cache_folder))
    proof = Proof(model)
    if runtime != "auto":
        return _asked_for(RUNTIMES[runtime], device, precision, model, proof)
    if device == "cuda" or (device == "auto" and made_for_gpus()):
        try:
            return _first_on_gpu(precision, model, proof)
        except RuntimeUnavailable as error:
            if device == "cuda":
                raise
            _log.warning("the CPU serves instead of a GPU: %s", error)
    return _remembered(model, precision, proof) or _fastest(model, precision, proof)


def chosen_before(folder: Path, manifest: Manifest, precision: Precision, cache_folder: Path | None = None) -> bool:
    """Whether a choice is remembered for this machine."""
    return machine_cache(folder, manifest, cache_folder).read(_selection_file(precision)) is not None


def _asked_for(kind: RuntimeKind, device: Device, precision: Precision, model: Model, proof: Proof) -> Runtime:
    if device == "cuda" and device not in kind.devices:
        raise RuntimeUnavailable(f"the {kind.name} runtime is for CPUs, not for CUDA")
    # Of a runtime that is asked for by name, a precision below what else would be allowed is meant too.
    lowest = (kind.allowed(precision) or kind.precisions[:1])[-1]
    try:
        runtime = kind.open(model, device, lowest)
    except DeviceLost as error:
        raise RuntimeUnavailable(f"the GPU failed while {kind.name} was opened: {error}") from error
    if problem := proof.problem(runtime):
        if isinstance(runtime, Closing):
            with suppress(DeviceLost):  # that may be the problem
                runtime.close()
        raise RuntimeUnavailable(f"{runtime.name} in {runtime.precision} is not right for this model here: {problem}")
    return runtime


def _first_on_gpu(precision: Precision, model: Model, proof: Proof) -> Runtime:
    """The first runtime for GPUs that is right, the fastest kinds first, each in the fastest precision first.

    Raises:
        RuntimeUnavailable: none is.
    """
    tried: list[Candidate] = []
    for kind in RUNTIMES.values():
        highest, *lower = kind.allowed(precision) or kind.precisions[:1]
        for each in (*lower, highest) if "cuda" in kind.devices else ():
            try:
                runtime = _asked_for(kind, "cuda", each, model, proof)
            except RuntimeUnavailable as error:
                tried.append(Candidate(kind.name, each, problem=str(error)))
                continue
            for candidate in tried:
                _log.warning("%s in %s is left out: %s", candidate.runtime, candidate.precision, candidate.problem)
            return _with_candidates(runtime, [*tried, Candidate(kind.name, each)])
    raise RuntimeUnavailable("; ".join(dict.fromkeys(f"{each.runtime}: {each.problem}" for each in tried)))


def _fastest(model: Model, precision: Precision, proof: Proof) -> Runtime:
    """Try every candidate, remember how they did, and return the fastest that is right."""
    tried: list[Candidate] = []
    opened: dict[Candidate, Runtime] = {}
    for candidate in _candidates(precision):
        try:
            runtime = _open(candidate, model)
        except Exception as error:  # whatever a library raises: the others may still run
            if isinstance(error, ArtifactError) and candidate.precision == "fp32":
                raise  # what fp32 needs every artifact has
            tried.append(replace(candidate, problem=str(error)))
            continue
        if problem := proof.problem(runtime):
            _log.warning("%s in %s is left out: %s", runtime.name, candidate.precision, problem)
            tried.append(replace(candidate, problem=problem))
        else:
            opened[candidate] = runtime
    if not opened:
        raise RuntimeUnavailable(f"no runtime gives this model's answers here: {tried[0].problem}")
    measured = _measure(opened, proof.probes)
    tried += measured
    best = min(measured, key=lambda candidate: candidate.image_ms or 0.0)
    model.cache.write(_selection_file(precision), _CANDIDATES.dump_json(tried))
    return _with_candidates(opened[replace(best, image_ms=None)], tried)


def _remembered(model: Model, precision: Precision, proof: Proof) -> Runtime | None:
    """The runtime chosen before, if it still opens and still proves right."""
    content = model.cache.read(_selection_file(precision))
    if content is None:
        return None
    try:
        tried = _CANDIDATES.validate_json(content)
        usable = [candidate for candidate in tried if candidate.image_ms is not None]
        best = min(usable, key=lambda candidate: candidate.image_ms or 0.0)
        runtime = _open(best, model)
    except Exception as error:  # nonsense in the file, or whatever a library raises; all are tried again
        _log.warning("the runtime chosen before cannot be used: %s", error)
        return None
    if problem := proof.problem(runtime):
        _log.warning("%s, chosen before, is not right any more: %s", runtime.name, problem)
        return None
    return _with_candidates(runtime, tried)


def _candidates(lowest: Precision) -> list[Candidate]:
    kinds = [kind for kind in RUNTIMES.values() if kind.automatic and "cpu" in kind.devices]
    return [
        Candidate(kind.name, precision)
        for precision in PRECISIONS
        for kind in kinds
        if precision in kind.allowed(lowest)
    ]


def _open(candidate: Candidate, model: Model) -> Runtime:
    return RUNTIMES[candidate.runtime].open(model, "cpu", candidate.precision)


def _measure(opened: dict[Candidate, Runtime], probes: Probes) -> list[Candidate]:
    """The candidates with their times, measured in turns so that all meet the same conditions."""
    offset = np.zeros(1, np.float32)
    times: dict[Candidate, list[float]] = {candidate: [] for candidate in opened}
    give_up = time.perf_counter() + _SECONDS_EACH * len(opened)
    row = 0
    while row < 3 or time.perf_counter() < give_up:
        image = probes.images[row % len(probes)][None]
        for candidate, runtime in opened.items():
            # The first run warms caches that the candidate before has emptied.
            runtime.run(image, offset)
            started = time.perf_counter()
            runtime.run(image, offset)
            times[candidate].append(time.perf_counter() - started)
        row += 1
    return [replace(candidate, image_ms=1000 * statistics.median(taken)) for candidate, taken in times.items()]


def _with_candidates(runtime: Runtime, tried: Sequence[Candidate]) -> Runtime:
    runtime.candidates = tuple(tried)
    return runtime


def _selection_file(precision: Precision) -> str:
    return f"selection-{precision}.json"
