"""The compiled network in bfloat16 and in 8 bits, on processors that multiply them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="needs llvmlite")

from artifact.agreement import Agreement
from artifact.manifest import INT8_NAME, ArtifactError, Manifest, file_digest
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import selection
from service.engine.runtimes.base import Precision, Runtime
from service.engine.runtimes.compiled import processor
from service.engine.runtimes.compiled import runtime as module
from service.engine.runtimes.compiled.processor import VectorUnit
from service.engine.runtimes.compiled.runtime import CompiledRuntime
from service.engine.runtimes.int8 import Int8Runtime
from service.engine.runtimes.machine_cache import MachineCache
from service.engine.runtimes.selection import open_runtime
from tests.networks import inputs
from tests.service.engine.runtimes.artifacts import (
    LOW_PRECISION,
    NARROW,
    Exported,
    assert_batches_are_their_images,
    assert_threads_get_their_own_answers,
    exported_in_8_bits,
)
from tests.service.engine.runtimes.compiled.kernels import needs_bf16, needs_int8

EACH = pytest.mark.parametrize(
    "precision", [pytest.param("bf16", marks=needs_bf16), pytest.param("int8", marks=needs_int8)]
)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_in_8_bits(tmp_path_factory.getbasetemp(), "all gated")


def _open(exported: Exported, precision: Precision, cache: MachineCache | None = None) -> CompiledRuntime:
    return CompiledRuntime(exported.folder, exported.manifest, cache or MachineCache([], exported.manifest), precision)


def _agreement(runtime: Runtime, exported: Exported, offset: float) -> Agreement:
    images, offsets = inputs(exported.network, 60), np.full(60, offset, np.float32)
    agreement = Agreement()
    agreement.compare(
        "low", exported.portable.run(images, offsets), runtime.run(images, offsets), offsets, runtime.manifest.gating
    )
    return agreement


OFFSETS = (0.0, 0.3, 1e4, -1e4)


@needs_bf16
@pytest.mark.parametrize("shape", list(LOW_PRECISION))
def test_network_in_bf16_is_nearly_that_in_fp32(tmp_path_factory: pytest.TempPathFactory, shape: str) -> None:
    exported = exported_in_8_bits(tmp_path_factory.getbasetemp(), shape)
    runtime = _open(exported, "bf16")
    for offset in OFFSETS:
        agreement = _agreement(runtime, exported, offset)
        assert agreement.low_precision_problem() is None
        assert max(agreement.margin_difference, agreement.logit_difference) < 0.03


@needs_int8
@pytest.mark.parametrize("shape", list(LOW_PRECISION))
def test_network_in_int8_is_as_near_to_fp32_as_in_another_library(
    tmp_path_factory: pytest.TempPathFactory, shape: str
) -> None:
    exported = exported_in_8_bits(tmp_path_factory.getbasetemp(), shape)
    runtime, other = _open(exported, "int8"), Int8Runtime(exported.folder, exported.manifest)
    for offset in OFFSETS:
        ours, theirs = _agreement(runtime, exported, offset), _agreement(other, exported, offset)
        assert ours.equal_gates > theirs.equal_gates - 0.03
        assert ours.equal_predictions > theirs.equal_predictions - 0.1
        # Relative to the largest of a batch; a branch that computes something else is off by about 1.
        assert ours.margin_difference < 1.5 * theirs.margin_difference + 0.02
        assert ours.logit_difference < 1.5 * theirs.logit_difference + 0.02


@EACH
def test_runtime_says_in_what_it_computes(gated: Exported, precision: Precision) -> None:
    runtime = _open(gated, precision)
    assert (runtime.name, runtime.precision, runtime.device) == (processor.NAME, precision, "cpu")


@EACH
def test_batches_and_threads_get_their_own_answers(gated: Exported, precision: Precision) -> None:
    runtime = _open(gated, precision)
    assert_batches_are_their_images(runtime, gated)
    assert_threads_get_their_own_answers(runtime, gated)


@EACH
def test_every_precision_is_kept_by_itself(
    gated: Exported, tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, image, offset = MachineCache([tmp_path], gated.manifest), inputs(gated.network, 1), np.zeros(1, np.float32)
    made = {each: _open(gated, each, cache).run(image, offset)[1] for each in ("fp32", precision)}
    assert (made["fp32"] != made[precision]).any()
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("it was made again"))
    for each, margins in made.items():
        np.testing.assert_array_equal(_open(gated, each, cache).run(image, offset)[1], margins)


@EACH
def test_channels_that_fill_no_widest_vectors_are_refused(
    precision: Precision, tmp_path_factory: pytest.TempPathFactory
) -> None:
    exported = exported_in_8_bits(tmp_path_factory.getbasetemp(), *NARROW)
    with pytest.raises(RuntimeUnavailable, match="channels fill no vectors"):
        _open(exported, precision)


@needs_int8
def test_int8_does_without_pairs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled_without_pairs(assembly: str) -> bytes:
        assert "bfloat" not in assembly  # for which LLVM would call a function that is nowhere
        return processor.compiled_code(assembly)

    monkeypatch.setattr(module, "host_vector_unit", lambda: VectorUnit(16, 32, int8_dot=True))
    monkeypatch.setattr(module, "compiled_code", compiled_without_pairs)
    exported = exported_in_8_bits(tmp_path_factory.getbasetemp(), "imagenet stem, bottlenecks")
    agreement = _agreement(_open(exported, "int8"), exported, 0.0)
    assert agreement.low_precision_problem(0.9) is None


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("vectors", [VectorUnit(8, 16), VectorUnit(16, 32)], ids=str)
def test_processor_without_the_instructions_is_told(
    gated: Exported, precision: Precision, vectors: VectorUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "host_vector_unit", lambda: vectors)
    with pytest.raises(RuntimeUnavailable, match=f"this processor has no {precision} arithmetic"):
        _open(gated, precision)
    assert _open(gated, "fp32").precision == "fp32"


@needs_int8
def test_artifact_without_an_int8_graph_has_none_to_compile(gated: Exported) -> None:
    files = {name: digest for name, digest in gated.manifest.files.items() if name != INT8_NAME}
    manifest: Manifest = gated.manifest.model_copy(update={"files": files})
    with pytest.raises(ArtifactError, match=f"has no {INT8_NAME}"):
        _open(gated._replace(manifest=manifest), "int8")


@needs_int8
@pytest.mark.parametrize("kept", [False, True])
def test_damaged_int8_graph_is_refused_whatever_was_kept(gated: Exported, tmp_path: Path, kept: bool) -> None:
    cache = MachineCache([tmp_path / "cache"], gated.manifest)
    if kept:
        _open(gated, "int8", cache)
    folder = shutil.copytree(gated.folder, tmp_path / "copy")
    content = bytearray((folder / INT8_NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / INT8_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        _open(gated._replace(folder=folder), "int8", cache)


@needs_int8
def test_graph_of_another_network_is_refused(gated: Exported, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = exported_in_8_bits(tmp_path_factory.getbasetemp(), "bottlenecks")
    folder = shutil.copytree(gated.folder, tmp_path_factory.mktemp("mixed") / "copy")
    shutil.copy(other.folder / INT8_NAME, folder / INT8_NAME)
    files = gated.manifest.files | {INT8_NAME: file_digest(folder / INT8_NAME)}
    manifest = gated.manifest.model_copy(update={"files": files})
    with pytest.raises(RuntimeUnavailable, match="cannot be compiled"):
        _open(gated._replace(folder=folder, manifest=manifest), "int8")


@needs_bf16
@needs_int8
def test_lowest_precision_that_is_allowed_decides_what_is_tried(
    gated: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    tried = {}
    for lowest in ("fp32", "bf16", "int8"):
        candidates = open_runtime(gated.folder, "auto", "cpu", lowest, tmp_path).candidates
        tried[lowest] = [each.precision for each in candidates if each.runtime == "compiled"]
    assert {lowest: sorted(found) for lowest, found in tried.items()} == {
        "fp32": ["fp32"],
        "bf16": ["bf16", "fp32"],
        "int8": ["bf16", "fp32", "int8"],
    }
    for precision in ("fp32", "bf16"):
        opened = open_runtime(gated.folder, "compiled", "cpu", precision, tmp_path)
        assert isinstance(opened, CompiledRuntime)
        assert opened.precision == precision
