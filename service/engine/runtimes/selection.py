"""Which runtime serves a model on this machine's CPU: the fastest that proves right, found once and remembered.

Every candidate must give the model's own answers to its probes; at the first opening also with all gates forced open,
with all forced closed, and with both in turn, so that no branch goes unseen. In fp32 that means the gates and logits of
the verified export within its tolerances. In bf16 and int8 it means nearly all of its decisions and predictions.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from artifact.agreement import LEAST_EQUAL_PREDICTIONS, Agreement
from artifact.manifest import Manifest
from artifact.probes import Probes, read_probes
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Candidate, Precision, Runtime, RuntimeName
from service.engine.runtimes.machine_cache import MachineCache, machine_cache

_log = logging.getLogger(__name__)

# On paths that no image takes by itself the network is less sure, and fewer bits turn more of its predictions. A branch
# that computes something else turns nearly all of them where it is open, which is half of the time.
_LEAST_EQUAL_FORCED_PREDICTIONS = 0.75
_SECONDS_EACH = 0.25
_FORCED = 1e4
_CANDIDATES = TypeAdapter(list[Candidate])


def open_on_cpu(
    folder: Path,
    manifest: Manifest,
    runtime: RuntimeName,
    precision: Precision,
    cache_folder: Path | None = None,
) -> Runtime:
    """Open the model with the runtime asked for, or with the fastest.

    Raises:
        ArtifactError: the artifact is damaged.
        RuntimeUnavailable: the runtime asked for is not there, or gives other answers than the trained network.
    """
    probes = read_probes(folder, manifest)
    cache = machine_cache(folder, manifest, cache_folder)
    if runtime != "auto":
        lowest: Precision = "bf16" if runtime == "openvino" and precision == "int8" else precision
        opened = _open(Candidate(runtime, lowest), folder, manifest, cache)
        if problem := _problem(opened, probes):
            raise RuntimeUnavailable(f"{opened.name} in {opened.precision} is not right for this model here: {problem}")
        return opened
    return _remembered(folder, manifest, precision, probes, cache) or _fastest(
        folder, manifest, precision, probes, cache
    )


def chosen_before(folder: Path, manifest: Manifest, precision: Precision, cache_folder: Path | None = None) -> bool:
    """Whether a choice is remembered for this machine."""
    return machine_cache(folder, manifest, cache_folder).read(_selection_file(precision)) is not None


def _fastest(folder: Path, manifest: Manifest, precision: Precision, probes: Probes, cache: MachineCache) -> Runtime:
    """Try every candidate, remember how they did, and return the fastest that is right."""
    tried: list[Candidate] = []
    opened: dict[Candidate, Runtime] = {}
    portable = _open(Candidate("onnx", "fp32"), folder, manifest, cache)
    for candidate in _candidates(precision):
        try:
            runtime = portable if candidate.runtime == "onnx" else _open(candidate, folder, manifest, cache)
        except Exception as error:  # whatever a library raises: the portable graph still runs
            tried.append(replace(candidate, problem=str(error)))
            continue
        if problem := _problem(runtime, probes) or _forced_problem(runtime, portable, probes):
            _log.warning("%s in %s is left out: %s", runtime.name, candidate.precision, problem)
            tried.append(replace(candidate, problem=problem))
        else:
            opened[candidate] = runtime
    if not opened:
        raise RuntimeUnavailable(f"no runtime gives this model's answers here: {tried[0].problem}")
    measured = _measure(opened, probes)
    tried += measured
    best = min(measured, key=lambda candidate: candidate.image_ms or 0.0)
    cache.write(_selection_file(precision), _CANDIDATES.dump_json(tried))
    return _with_candidates(opened[replace(best, image_ms=None)], tried)


def _remembered(
    folder: Path, manifest: Manifest, precision: Precision, probes: Probes, cache: MachineCache
) -> Runtime | None:
    """The runtime chosen before, if it still opens and still proves right."""
    content = cache.read(_selection_file(precision))
    if content is None:
        return None
    try:
        tried = _CANDIDATES.validate_json(content)
        usable = [candidate for candidate in tried if candidate.image_ms is not None]
        best = min(usable, key=lambda candidate: candidate.image_ms or 0.0)
        runtime = _open(best, folder, manifest, cache)
    except Exception as error:  # nonsense in the file, or whatever a library raises; all are tried again
        _log.warning("the runtime chosen before cannot be used: %s", error)
        return None
    if problem := _problem(runtime, probes):
        _log.warning("%s, chosen before, is not right any more: %s", runtime.name, problem)
        return None
    return _with_candidates(runtime, tried)


def _candidates(precision: Precision) -> list[Candidate]:
    runtimes: tuple[RuntimeName, ...] = ("onnx", "compiled", "openvino")
    found = [Candidate(runtime, "fp32") for runtime in runtimes]
    if precision != "fp32":
        found += [Candidate("compiled", "bf16"), Candidate("openvino", "bf16")]
    if precision == "int8":
        found += [Candidate("compiled", "int8"), Candidate("int8", "int8")]
    return found


def _open(candidate: Candidate, folder: Path, manifest: Manifest, cache: MachineCache) -> Runtime:
    # Imported here because a serving install has only some of the libraries, and those that are not used cost memory.
    if candidate.runtime == "openvino":
        from service.engine.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(folder, manifest, candidate.precision)
    if candidate.runtime == "compiled":
        from service.engine.runtimes.compiled.runtime import CompiledRuntime

        return CompiledRuntime(folder, manifest, cache, candidate.precision)
    if candidate.runtime == "int8":
        from service.engine.runtimes.int8 import Int8Runtime

        return Int8Runtime(folder, manifest)
    from service.engine.runtimes.onnx import OnnxRuntime

    return OnnxRuntime(folder, manifest, "cpu")


def _problem(runtime: Runtime, probes: Probes) -> str | None:
    """What is wrong with a runtime's answers to the probes, one image at a time as a CPU runs them."""
    offset = np.zeros(1, np.float32)
    try:
        answers = [runtime.run(probes.images[row : row + 1], offset) for row in range(len(probes))]
        actual = np.concatenate([logits for logits, _ in answers]), np.concatenate([margins for _, margins in answers])
    except Exception as error:  # whatever a library raises
        return f"it fails: {error}"
    return _verdict(runtime, probes.agreement(actual, runtime.manifest.gate_threshold), LEAST_EQUAL_PREDICTIONS)


def _forced_problem(runtime: Runtime, portable: Runtime, probes: Probes) -> str | None:
    """What is wrong with paths no probe may take, compared with the portable graph."""
    if runtime is portable:
        return None
    agreement = Agreement()
    images = probes.images[:4]
    for forced in ([_FORCED], [-_FORCED], [_FORCED, -_FORCED]):
        offsets = np.resize(np.array(forced, np.float32), len(images))
        expected = portable.run(images, offsets)
        try:
            actual = runtime.run(images, offsets)
        except Exception as error:  # whatever a library raises
            return f"with forced gates it fails: {error}"
        agreement.compare("forced gates", expected, actual, offsets, runtime.manifest.gate_threshold)
    return _verdict(runtime, agreement, _LEAST_EQUAL_FORCED_PREDICTIONS)


def _verdict(runtime: Runtime, agreement: Agreement, least_equal_predictions: float) -> str | None:
    if runtime.precision == "fp32":
        return agreement.problems[0] if agreement.problems else None
    return agreement.low_precision_problem(least_equal_predictions)


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
