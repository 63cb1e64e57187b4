"""No buffer of a compiled network is read or written beyond its ends: see `guarded`, which runs by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifact.manifest import INT8_NAME, read_manifest
from service.engine.runtimes.compiled.processor import host_vector_unit
from tests.service.engine.runtimes.artifacts import exported_in_8_bits, exported_shape

ROOT = Path(__file__).parents[5]
# Of a cascade, its networks.
FOLDERS = sorted(path.parent for path in (ROOT / "model_repository").rglob("manifest.json"))
SHIPPED = [folder for folder in FOLDERS if not read_manifest(folder).members]
LOW = [*["bf16"] * host_vector_unit().bf16_dot, *["int8"] * host_vector_unit().int8_dot]


def _guarded(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.service.engine.runtimes.compiled.guarded", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def _assert_keeps_to_its_buffers(folder: Path, precisions: list[str]) -> None:
    finished = _guarded(folder, *precisions)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert len(finished.stdout.splitlines()) == 2 * len(precisions)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: "/".join(folder.parts[-3:]))
def test_shipped_network_keeps_to_its_buffers(folder: Path) -> None:
    has_int8 = INT8_NAME in read_manifest(folder).files
    _assert_keeps_to_its_buffers(folder, ["fp32", *(each for each in LOW if each != "int8" or has_int8)])


@pytest.mark.parametrize(
    "shape",
    [
        "first without a gate",
        "bottlenecks",
        "imagenet stem, basic",
        "widths 4, 8, 16",
        "widths 8, 24, 40",
        "narrow with imagenet stem",
        "plain",
    ],
)
def test_small_network_keeps_to_its_buffers(tmp_path_factory: pytest.TempPathFactory, shape: str) -> None:
    _assert_keeps_to_its_buffers(exported_shape(tmp_path_factory.getbasetemp(), shape).folder, ["fp32"])


@pytest.mark.parametrize("shape", ["all gated", "imagenet stem, bottlenecks", "projection of a single pixel"])
def test_small_network_keeps_to_its_buffers_in_every_precision(
    tmp_path_factory: pytest.TempPathFactory, shape: str
) -> None:
    folder = exported_in_8_bits(tmp_path_factory.getbasetemp(), shape).folder
    _assert_keeps_to_its_buffers(folder, ["fp32", *LOW])


@pytest.mark.parametrize(
    ("bug", "end", "status"),
    [
        ("read before", "begin", -signal.SIGSEGV),
        ("read beyond", "end", -signal.SIGSEGV),
        ("write beyond", "end", -signal.SIGSEGV),
        ("write before", "end", 1),  # what is left of the pages shows it before the guard zone at their begin does
    ],
)
def test_offset_that_is_wrong_is_found(
    tmp_path_factory: pytest.TempPathFactory, bug: str, end: str, status: int
) -> None:
    folder = exported_shape(tmp_path_factory.getbasetemp(), "imagenet stem, basic").folder
    finished = _guarded(folder, "fp32", "--bug", bug)
    assert finished.returncode == status, finished.stdout + finished.stderr
    assert finished.stdout.splitlines()[-1] == f"fp32, at the {end} of pages"
    assert status == -signal.SIGSEGV or "assert_untouched_around" in finished.stderr
