from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from artifact.agreement import LogitsAndMargins
from artifact.manifest import ONNX_NAME, PROBES_NAME, ArtifactError, Manifest, file_digest, write_manifest
from artifact.preprocessing import Float32Array
from artifact.probes import read_probes, write_probes
from service.engine import selection
from service.engine.errors import RuntimeUnavailable
from service.engine.runtime import Candidate, Precision, Runtime, RuntimeName, open_runtime
from service.engine.selection import open_on_cpu
from tests.service.engine.artifacts import Exported, assert_like_portable, exported_shape
from tests.service.engine.queueing import Clock

Change = Callable[[Float32Array, Float32Array, Float32Array], LogitsAndMargins]
"""From the right logits and margins and the gate offsets to what a runtime says instead."""

ONNX, BLOCKED = Candidate("onnx", "fp32"), Candidate("blocked", "fp32")
OPENVINO, OPENVINO_BF16 = Candidate("openvino", "fp32"), Candidate("openvino", "bf16")


class FakeRuntime:
    """Says what the portable graph says, or something else, and takes as long as it is told to."""

    device = "cpu"
    runs_batches = False

    def __init__(self, lab: Lab, candidate: Candidate, seconds: float, change: Change | None) -> None:
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
        for candidate in (ONNX, BLOCKED, OPENVINO, OPENVINO_BF16):
            self.offer(candidate, milliseconds=10)

    def offer(self, candidate: Candidate, milliseconds: float = 1, change: Change | None = None) -> None:
        """Opening the candidate gives a runtime that takes so long."""
        self._offers[candidate] = milliseconds / 1000, change

    def withdraw(self, candidate: Candidate, error: Exception) -> None:
        """Opening the candidate fails."""
        self._offers[candidate] = error

    def open(self, candidate: Candidate, *_: object) -> Runtime:
        """Stands in for `selection._open`."""
        candidate = Candidate(candidate.runtime, candidate.precision)
        self.opened.append(candidate)
        offer = self._offers.get(candidate, RuntimeUnavailable("not in this lab"))
        if isinstance(offer, Exception):
            raise offer
        return FakeRuntime(self, candidate, *offer)

    def choose(
        self, precision: Precision = "fp32", runtime: RuntimeName = "auto", folder: Path | None = None
    ) -> Runtime:
        """Open the model anew."""
        self.opened.clear()
        cache = self.cache_folder if folder is None else None
        return open_on_cpu(folder or self.exported.folder, self.exported.manifest, runtime, precision, cache)

    @property
    def selection_file(self) -> Path:
        (file,) = self.cache_folder.rglob("selection-*")
        return file


@pytest.fixture
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported_shape(tmp_path_factory.getbasetemp(), "all gated")


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: Exported) -> Lab:
    lab = Lab(exported, tmp_path / "cache")
    monkeypatch.setattr(selection, "time", SimpleNamespace(perf_counter=lab.clock))
    monkeypatch.setattr(selection, "_open", lab.open)
    monkeypatch.setattr(selection, "OnnxRuntime", lambda *_: lab.open(ONNX))
    return lab


def _chosen(runtime: Runtime) -> tuple[str, str]:
    return runtime.name.split()[0], runtime.precision


def _tried(runtime: Runtime) -> dict[tuple[str, str], Candidate]:
    return {(candidate.runtime, candidate.precision): candidate for candidate in runtime.candidates}


@pytest.mark.parametrize("fastest", [ONNX, BLOCKED, OPENVINO])
def test_fastest_is_chosen(lab: Lab, fastest: Candidate) -> None:
    lab.offer(fastest, milliseconds=9)
    runtime = lab.choose()
    assert _chosen(runtime) == (fastest.runtime, "fp32")
    tried = _tried(runtime)
    for candidate in (ONNX, BLOCKED, OPENVINO):
        expected = 9 if candidate == fastest else 10
        assert tried[candidate.runtime, "fp32"].image_ms == pytest.approx(expected)
        assert tried[candidate.runtime, "fp32"].problem is None


def test_time_of_an_image_is_the_median_of_warm_runs(lab: Lab) -> None:
    def slow_at_first(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
        # Every first run of two after another candidate's is slow.
        calls[0] += 1
        lab.clock.now += 0.5 if calls[0] % 2 else 0.0
        return logits, margins

    calls = [0]
    lab.offer(BLOCKED, 4, slow_at_first)
    probes = len(read_probes(lab.exported.folder, lab.exported.manifest))
    assert (probes + 3) % 2 == 1  # so that the second runs, which count, are the quick ones
    calls[0] = 1
    assert _tried(lab.choose())["blocked", "fp32"].image_ms == pytest.approx(4)


def test_bf16_is_tried_only_where_it_is_allowed(lab: Lab) -> None:
    lab.offer(OPENVINO_BF16, milliseconds=1)
    assert _chosen(lab.choose("fp32"))[1] == "fp32"
    assert OPENVINO_BF16 not in lab.opened
    assert _chosen(lab.choose("bf16")) == ("openvino", "bf16")
    # Each precision has a memory of its own.
    assert _chosen(lab.choose("fp32"))[1] == "fp32"
    assert _chosen(lab.choose("bf16")) == ("openvino", "bf16")


def test_bf16_that_is_slower_is_not_taken(lab: Lab) -> None:
    lab.offer(OPENVINO_BF16, milliseconds=20)
    lab.offer(BLOCKED, milliseconds=5)
    runtime = lab.choose("bf16")
    assert _chosen(runtime) == ("blocked", "fp32")
    assert _tried(runtime)["openvino", "bf16"].image_ms == pytest.approx(20)


def test_choice_is_remembered_and_not_measured_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.offer(BLOCKED, milliseconds=2)
    lab.withdraw(OPENVINO, RuntimeUnavailable("it needs a library"))
    first = lab.choose()
    monkeypatch.setattr(selection, "_measure", lambda *_: pytest.fail("it was measured again"))
    second = lab.choose()
    assert lab.opened == [BLOCKED]
    assert second is not first
    assert _chosen(second) == ("blocked", "fp32")
    assert second.candidates == first.candidates
    assert _tried(second)["openvino", "fp32"].problem == "it needs a library"


def _logits_off(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits + np.float32(0.1), margins


def _gates_off(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits, -margins


def _nan(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits * np.float32(np.nan), margins


def _too_few_margins(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    return logits, margins[:, :-1]


def _raises(*_: Float32Array) -> LogitsAndMargins:
    raise ValueError("out of its depth")


def _off_when_forced(wanted: float) -> Change:
    """Wrong only where the gates of an image are forced open, or closed."""

    def change(logits: Float32Array, margins: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
        wrong = np.sign(offsets) == wanted
        return logits + wrong[:, None].astype(np.float32), margins

    return change


def _off_in_mixed_batches(logits: Float32Array, margins: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
    return (logits[::-1], margins) if len(set(offsets.tolist())) > 1 else (logits, margins)


def _raises_when_forced(logits: Float32Array, margins: Float32Array, offsets: Float32Array) -> LogitsAndMargins:
    if offsets.any():
        raise ValueError("out of its depth")
    return logits, margins


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_logits_off, "a logit differs"),
        (_gates_off, "gates decide differently"),
        (_nan, "a logit differs by nan"),
        (_too_few_margins, "shapes"),
        (_raises, "it fails: out of its depth"),
        (_off_when_forced(1), "forced gates: a logit differs"),
        (_off_when_forced(-1), "forced gates: a logit differs"),
        (_off_in_mixed_batches, "forced gates: a logit differs"),
        (_raises_when_forced, "with forced gates it fails: out of its depth"),
    ],
)
def test_runtime_that_is_not_right_is_left_out_and_its_problem_told(
    lab: Lab, caplog: pytest.LogCaptureFixture, change: Change, problem: str
) -> None:
    lab.offer(BLOCKED, 1, change)
    lab.offer(OPENVINO, 5)
    runtime = lab.choose()
    assert _chosen(runtime) == ("openvino", "fp32")
    left_out = _tried(runtime)["blocked", "fp32"]
    assert left_out.image_ms is None
    assert left_out.problem is not None
    assert problem in left_out.problem
    assert "blocked 1 in fp32 is left out" in caplog.text
    assert _tried(lab.choose())["blocked", "fp32"] == left_out  # it is remembered, too


@pytest.mark.parametrize("error", [RuntimeUnavailable("no such library"), KeyError("no such library")])
def test_runtime_that_does_not_open_is_left_out_and_its_problem_told(lab: Lab, error: Exception) -> None:
    lab.withdraw(BLOCKED, error)
    problem = _tried(lab.choose())["blocked", "fp32"].problem
    assert problem is not None
    assert "no such library" in problem


def test_bf16_may_be_less_exact_than_fp32_but_not_by_much(lab: Lab) -> None:
    def rounded(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
        return logits + np.float32(0.01), margins + np.float32(0.002) * np.sign(margins)

    lab.offer(OPENVINO_BF16, 1, rounded)
    lab.offer(OPENVINO, 1, rounded)
    runtime = lab.choose("bf16")
    assert _chosen(runtime) == ("openvino", "bf16")
    assert _tried(runtime)["openvino", "fp32"].problem is not None


def _nan_margins_of_closed_gates(
    logits: Float32Array, margins: Float32Array, offsets: Float32Array
) -> LogitsAndMargins:
    return logits, np.where(margins + offsets[:, None] > 0, margins, np.float32(np.nan))


def _nan_below_the_best(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
    """A NaN where argmax, which takes the first NaN for the highest, hides it."""
    spoilt = logits.copy()
    spoilt[np.arange(len(logits)), logits.argmax(axis=1)] = np.nan
    return spoilt, margins


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_gates_off, "of the gates"),
        (lambda logits, margins, _: (np.roll(logits, 1, axis=1), margins), "0.0% of the predictions"),
        (_nan_below_the_best, "not numbers"),
        (_nan_margins_of_closed_gates, "not numbers"),
        (_too_few_margins, "shapes"),
        (_raises, "it fails"),
    ],
)
def test_bf16_that_is_too_far_off_is_left_out(lab: Lab, change: Change, problem: str) -> None:
    lab.offer(OPENVINO_BF16, 1, change)
    runtime = lab.choose("bf16")
    assert _chosen(runtime)[1] == "fp32"
    told = _tried(runtime)["openvino", "bf16"].problem
    assert told is not None
    assert problem in told


def test_where_nothing_is_right_nothing_is_served(lab: Lab) -> None:
    for candidate in (ONNX, BLOCKED, OPENVINO):
        lab.offer(candidate, 1, _logits_off)
    with pytest.raises(RuntimeUnavailable, match=r"no runtime gives this model's answers here: .*a logit differs"):
        lab.choose()
    assert list(lab.cache_folder.rglob("selection-*")) == []


@pytest.mark.parametrize("candidate", [BLOCKED, OPENVINO, OPENVINO_BF16])
def test_runtime_asked_for_is_opened_and_not_compared_with_others(lab: Lab, candidate: Candidate) -> None:
    runtime = lab.choose(candidate.precision, candidate.runtime)
    assert _chosen(runtime) == (candidate.runtime, candidate.precision)
    assert lab.opened == [candidate]
    assert runtime.candidates == ()
    assert not lab.cache_folder.exists()


@pytest.mark.parametrize("change", [_logits_off, _gates_off, _nan, _too_few_margins, _raises])
def test_runtime_asked_for_that_is_not_right_is_refused(lab: Lab, change: Change) -> None:
    lab.offer(BLOCKED, 1, change)
    with pytest.raises(RuntimeUnavailable, match="blocked 1 in fp32 is not right for this model here: "):
        lab.choose(runtime="blocked")


def test_runtime_asked_for_that_is_not_there_is_told(lab: Lab) -> None:
    lab.withdraw(OPENVINO, RuntimeUnavailable("no such library"))
    with pytest.raises(RuntimeUnavailable, match="no such library"):
        lab.choose(runtime="openvino")


def test_damaged_memory_is_made_again(lab: Lab) -> None:
    lab.choose()
    whole = lab.selection_file.read_bytes()
    lab.selection_file.write_bytes(whole[:-2])
    lab.offer(OPENVINO, milliseconds=2)
    assert _chosen(lab.choose()) == ("openvino", "fp32")
    assert len(lab.opened) >= 3
    assert _chosen(lab.choose()) == ("openvino", "fp32")
    assert lab.opened == [OPENVINO]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"{}",
        b"[]",
        b"[1]",
        b'["onnx"]',
        b'[{"a": 1}]',
        b'[{"runtime": "magic", "precision": "fp32", "image_ms": 1.0}]',
        b'[{"runtime": "onnx", "precision": "fp32", "image_ms": null}]',
        b'[{"runtime": "onnx", "precision": "fp32", "image_ms": "soon"}]',
        b'[{"runtime": "onnx", "precision": "fp32", "image_ms": 1.0}, 2]',
    ],
)
def test_nonsense_in_the_memory_is_made_again(lab: Lab, content: bytes) -> None:
    lab.choose()
    lab.selection_file.write_bytes(sha256(content).hexdigest().encode() + b"\n" + content)
    lab.offer(OPENVINO, milliseconds=2)
    assert _chosen(lab.choose()) == ("openvino", "fp32")
    assert _chosen(lab.choose()) == ("openvino", "fp32")
    assert lab.opened == [OPENVINO]


@pytest.mark.parametrize("how", ["wrong", "raises", "unavailable", "broken"])
def test_remembered_runtime_that_fails_is_replaced(lab: Lab, how: str) -> None:
    lab.offer(BLOCKED, milliseconds=2)
    lab.offer(OPENVINO, milliseconds=5)
    assert _chosen(lab.choose()) == ("blocked", "fp32")
    if how in ("wrong", "raises"):
        lab.offer(BLOCKED, 2, _logits_off if how == "wrong" else _raises)
    else:
        problem = "no such library"
        lab.withdraw(BLOCKED, RuntimeUnavailable(problem) if how == "unavailable" else OSError(problem))
    runtime = lab.choose()
    assert _chosen(runtime) == ("openvino", "fp32")
    assert _tried(runtime)["blocked", "fp32"].problem is not None
    assert _chosen(lab.choose()) == ("openvino", "fp32")
    assert lab.opened == [OPENVINO]


def test_model_that_cannot_be_written_beside_is_remembered_in_the_users_cache(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(lab.exported.folder, tmp_path / "copy")
    (folder / ".cache").write_bytes(b"")  # in the way, even of root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    lab.offer(BLOCKED, milliseconds=2)
    lab.choose(folder=folder)
    assert [path.name for path in (tmp_path / "xdg").rglob("selection-*")] == ["selection-fp32.json"]
    assert _chosen(lab.choose(folder=folder)) == ("blocked", "fp32")
    assert lab.opened == [BLOCKED]


def test_without_a_place_to_remember_every_opening_chooses_anew(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(lab.exported.folder, tmp_path / "copy")
    (folder / ".cache").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    lab.offer(BLOCKED, milliseconds=2)
    for _ in range(2):
        assert _chosen(lab.choose(folder=folder)) == ("blocked", "fp32")
        assert {ONNX, BLOCKED, OPENVINO} <= set(lab.opened)


@pytest.mark.parametrize("runtime", ["auto", "blocked", "openvino"])
@pytest.mark.parametrize("how", ["missing", "damaged", "of another model", "unlisted"])
def test_artifact_without_its_probes_is_refused(
    exported: Exported, tmp_path: Path, runtime: RuntimeName, how: str
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    path, manifest = copy / PROBES_NAME, exported.manifest
    if how == "missing":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "unlisted":
        files = {name: digest for name, digest in manifest.files.items() if name != PROBES_NAME}
        write_manifest(copy, manifest.model_copy(update={"files": files}))
    else:
        probes = read_probes(copy, manifest)
        write_probes(copy, replace(probes, margins=probes.margins[:, :-1]))
        files = manifest.files | {PROBES_NAME: file_digest(path)}
        write_manifest(copy, manifest.model_copy(update={"files": files}))
    problem = {"missing": "is missing", "damaged": "damaged", "unlisted": "has no", "of another model": "another model"}
    with pytest.raises(ArtifactError, match=problem[how]):
        open_runtime(copy, runtime, "cpu", cache_folder=tmp_path / "cache")


def test_damaged_model_is_refused_though_its_runtime_is_remembered(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    monkeypatch.setattr(selection, "_candidates", lambda *_: [ONNX])
    open_runtime(copy, "auto", "cpu", cache_folder=tmp_path / "cache")
    data = bytearray((copy / ONNX_NAME).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / ONNX_NAME).write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        open_runtime(copy, "auto", "cpu", cache_folder=tmp_path / "cache")


@pytest.mark.parametrize("shape", ["all gated", "widths 16, 24, 32", "narrow bottlenecks", "plain"])
def test_whatever_is_chosen_gives_the_portable_graphs_answers(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    exported = exported_shape(tmp_path_factory.getbasetemp(), shape)
    first = open_runtime(exported.folder, "auto", "cpu", cache_folder=tmp_path)
    assert_like_portable(first, exported)
    tried = _tried(first)
    assert {("onnx", "fp32"), ("blocked", "fp32"), ("openvino", "fp32")} <= tried.keys()
    assert tried["onnx", "fp32"].image_ms is not None
    for candidate in tried.values():
        assert (candidate.image_ms is None) is not (candidate.problem is None)

    monkeypatch.setattr(selection, "_measure", lambda *_: pytest.fail("it was measured again"))
    second = open_runtime(exported.folder, "auto", "cpu", cache_folder=tmp_path)
    assert (second.name, second.candidates) == (first.name, first.candidates)
    assert_like_portable(second, exported)
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(
        [*exported.manifest.files, "manifest.json"]
    )


def test_probes_that_are_not_the_models_answers_let_nothing_serve(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    probes = read_probes(copy, exported.manifest)
    write_probes(copy, replace(probes, logits=probes.logits[::-1]))
    files = exported.manifest.files | {PROBES_NAME: file_digest(copy / PROBES_NAME)}
    manifest: Manifest = exported.manifest.model_copy(update={"files": files})
    write_manifest(copy, manifest)
    monkeypatch.setattr(selection, "_candidates", lambda *_: [ONNX, BLOCKED])
    with pytest.raises(RuntimeUnavailable, match="no runtime gives this model's answers here"):
        open_runtime(copy, "auto", "cpu", cache_folder=tmp_path / "cache")


def test_processor_without_bf16_is_served_in_fp32(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    monkeypatch.setattr(selection, "_SECONDS_EACH", 0.001)
    runtime = open_runtime(exported.folder, "auto", "cpu", "bf16", tmp_path)
    assert runtime.precision == "fp32"
    assert _tried(runtime)["openvino", "bf16"].problem == "this processor has no bf16 arithmetic"
    with pytest.raises(RuntimeUnavailable, match="no bf16 arithmetic"):
        open_runtime(exported.folder, "openvino", "cpu", "bf16", tmp_path)


@pytest.mark.parametrize("missing", [("onnx",), ("openvino",), ("onnx", "openvino")])
def test_missing_packages_leave_the_portable_graph(
    exported: Exported, tmp_path: Path, missing: tuple[str, ...]
) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    program = f"""
import sys
for library in {missing!r}:
    sys.modules[library] = None
from pathlib import Path
from service.engine import selection
from service.engine.runtime import open_runtime
selection._SECONDS_EACH = 0.001
runtime = open_runtime(Path({str(exported.folder)!r}), "auto", "cpu", "bf16", Path({str(tmp_path)!r}))
for candidate in runtime.candidates:
    if "is not installed" in (candidate.problem or ""):
        print(candidate.runtime, candidate.precision, candidate.problem.split(" needs ")[1])
    elif candidate.image_ms:
        print(candidate.runtime, candidate.precision, "runs")
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    lines = set(finished.stdout.splitlines())
    assert "onnx fp32 runs" in lines, finished.stderr
    openvino_needs = "openvino" if "openvino" in missing else "onnx"
    for precision in ("fp32", "bf16"):
        assert f"openvino {precision} {openvino_needs}, which is not installed" in lines
    assert ("blocked fp32 onnx, which is not installed" in lines) is ("onnx" in missing)


def test_portable_graph_is_opened_once(lab: Lab) -> None:
    lab.choose()
    assert lab.opened.count(ONNX) == 1


def test_probes_are_run_one_by_one_as_images_come(lab: Lab) -> None:
    sizes: list[int] = []

    def noting(logits: Float32Array, margins: Float32Array, _: Float32Array) -> LogitsAndMargins:
        sizes.append(len(logits))
        return logits, margins

    lab.offer(BLOCKED, 1, noting)
    lab.choose(runtime="blocked")
    assert sizes == [1] * 12
