"""What holds for every runtime that makes something for this machine out of the portable graph, and keeps it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from artifact.manifest import ArtifactError, Manifest
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.base import Runtime
from service.engine.runtimes.machine_cache import MachineCache
from tests.networks import inputs
from tests.service.engine.runtimes.artifacts import (
    BLOCKABLE,
    OTHERS,
    Exported,
    assert_batches_are_their_images,
    assert_like_portable,
    assert_margin_at_the_threshold_is_closed,
    assert_same,
    assert_threads_get_their_own_answers,
    exported_shape,
    with_no_model,
    with_one_bit_changed,
)
from tests.service.engine.runtimes.test_blocked_graph import needs_x86


@dataclass(frozen=True)
class Made:
    """A runtime that makes something for this machine.

    Attributes:
        name: to ask for it.
        kind: its class.
        library: that runs what it makes.
        title: what the runtime says it is.
        kept: name of the file that it keeps.
        refusal: begins what is told of a file it can make nothing of, after which comes `path`.
        shapes: of the networks it is for.
    """

    name: str
    kind: str
    library: str
    title: str
    kept: str
    refusal: str
    shapes: dict[str, dict[str, object]]

    @property
    def module(self) -> str:
        """Where the class is."""
        return f"service.engine.runtimes.{'compiled.runtime' if self.name == 'compiled' else self.name}"

    def open(self, folder: Path, manifest: Manifest, cache: MachineCache | None = None) -> Runtime:
        """Open an artifact, with nothing kept unless a cache is given."""
        pytest.importorskip(self.library, reason=f"needs {self.library}")
        kind: Callable[..., Runtime] = getattr(import_module(self.module), self.kind)
        return kind(folder, manifest, cache or MachineCache([], manifest))


BLOCKED = Made(
    name="blocked",
    kind="BlockedRuntime",
    library="onnxruntime",
    title="onnxruntime {version}, blocked layout",
    kept="blocked.onnx",
    refusal="no blocked graph can be made of {path}: ",
    shapes=BLOCKABLE,
)
COMPILED = Made(
    name="compiled",
    kind="CompiledRuntime",
    library="llvmlite",
    title="llvm {llvm}, llvmlite {version}",
    kept="compiled-fp32.bin",
    refusal="{path} cannot be compiled: ",
    shapes=BLOCKABLE | OTHERS,
)
MADE = [pytest.param(BLOCKED, marks=needs_x86, id="blocked"), pytest.param(COMPILED, id="compiled")]
ANYWHERE = [pytest.param(BLOCKED, id="blocked"), pytest.param(COMPILED, id="compiled")]


def _shapes() -> list[object]:
    cases: list[object] = []
    for made, marks in ((BLOCKED, [needs_x86]), (COMPILED, [])):
        thresholds = [*((shape, 0.0) for shape in made.shapes), ("all gated", 0.3), ("bottlenecks", -0.3)]
        for shape, threshold in thresholds:
            identity = f"{made.name}, {shape} at {threshold}"
            cases.append(pytest.param(made, shape, threshold, marks=marks, id=identity))
    return cases


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "first without a gate")


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, wide: Exported) -> MachineCache:
    """What several tests may use, so that it is made once for all."""
    return MachineCache([tmp_path_factory.getbasetemp() / "made for the wide network"], wide.manifest)


@pytest.mark.parametrize(("made", "shape", "gate_threshold"), _shapes())
def test_runtime_does_what_the_portable_graph_does(
    tmp_path_factory: pytest.TempPathFactory, made: Made, shape: str, gate_threshold: float
) -> None:
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape, gate_threshold)
    assert_like_portable(made.open(exported.folder, exported.manifest), exported)


@pytest.mark.parametrize("made", MADE)
def test_runtime_may_be_called_from_several_threads(made: Made, wide: Exported, cache: MachineCache) -> None:
    assert_threads_get_their_own_answers(made.open(wide.folder, wide.manifest, cache), wide)


@pytest.mark.parametrize("made", MADE)
def test_batch_is_its_images_one_after_the_other(made: Made, wide: Exported, cache: MachineCache) -> None:
    assert_batches_are_their_images(made.open(wide.folder, wide.manifest, cache), wide)


@pytest.mark.parametrize("made", MADE)
def test_margin_at_the_threshold_is_closed(made: Made, tmp_path: Path) -> None:
    assert_margin_at_the_threshold_is_closed(made.open, tmp_path)


@pytest.mark.parametrize("made", MADE)
def test_runtime_says_what_it_is(made: Made, wide: Exported, cache: MachineCache) -> None:
    runtime = made.open(wide.folder, wide.manifest, cache)
    llvm = ".".join(map(str, import_module("llvmlite.binding").llvm_version_info)) if "{llvm}" in made.title else ""
    assert runtime.name == made.title.format(version=version(made.library), llvm=llvm)
    assert (runtime.device, runtime.precision, runtime.runs_batches) == ("cpu", "fp32", False)
    assert runtime.candidates == ()
    assert runtime.manifest == wide.manifest


@pytest.mark.parametrize("made", MADE)
def test_what_is_made_is_made_once_and_kept(
    monkeypatch: pytest.MonkeyPatch, made: Made, wide: Exported, cache: MachineCache
) -> None:
    first = made.open(wide.folder, wide.manifest, cache)
    monkeypatch.setattr(f"{made.module}._build", lambda *_: pytest.fail("it was made again"))
    second = made.open(wide.folder, wide.manifest, cache)
    images, zeros = inputs(wide.network, 4), np.zeros(4, np.float32)
    assert_same(second.run(images, zeros), first.run(images, zeros))


@pytest.mark.parametrize("made", MADE)
def test_what_is_kept_and_damaged_is_made_again(
    made: Made, wide: Exported, tmp_path: Path, cache: MachineCache
) -> None:
    made.open(wide.folder, wide.manifest, cache)
    whole = cache.read(made.kept)
    assert whole is not None
    cache = MachineCache([tmp_path], wide.manifest)
    cache.write(made.kept, whole)
    (kept,) = tmp_path.rglob(made.kept)
    kept.write_bytes(kept.read_bytes()[:-100])
    assert_like_portable(made.open(wide.folder, wide.manifest, cache), wide)
    assert cache.read(made.kept) == whole


@pytest.mark.parametrize("made", ANYWHERE)
def test_changed_file_is_refused(made: Made, wide: Exported, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        made.open(with_one_bit_changed(wide, tmp_path), wide.manifest)


@pytest.mark.parametrize("made", MADE)
def test_changed_file_is_refused_even_where_what_was_made_of_it_was_kept(
    made: Made, wide: Exported, tmp_path: Path, cache: MachineCache
) -> None:
    made.open(wide.folder, wide.manifest, cache)
    with pytest.raises(ArtifactError, match="damaged"):
        made.open(with_one_bit_changed(wide, tmp_path), wide.manifest, cache)


@pytest.mark.parametrize("made", ANYWHERE)
def test_file_that_is_no_model_is_refused_though_its_digest_is_right(
    made: Made, wide: Exported, tmp_path: Path
) -> None:
    manifest = with_no_model(wide, tmp_path)
    with pytest.raises(RuntimeUnavailable) as caught:
        made.open(tmp_path, manifest)
    assert str(caught.value).startswith(made.refusal.format(path=tmp_path / "model.onnx"))


@pytest.mark.parametrize("made", ANYWHERE)
def test_missing_onnx_package_is_told(made: Made, wide: Exported) -> None:
    pytest.importorskip(made.library, reason=f"needs {made.library}")
    program = f"""
import sys
sys.modules["onnx"] = None
from pathlib import Path
from artifact.manifest import read_manifest
from {made.module} import {made.kind}
from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes.machine_cache import MachineCache
folder = Path({str(wide.folder)!r})
manifest = read_manifest(folder)
try:
    {made.kind}(folder, manifest, MachineCache([], manifest))
except RuntimeUnavailable as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert finished.stdout == f"the {made.name} runtime needs onnx, which is not installed\n", finished.stderr
