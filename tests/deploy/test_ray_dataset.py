"""Datasets classified on a Ray cluster of several nodes, of which one is killed, and by a process that is killed.

Ray has an environment of its own, which `make test-ray` sets up. The tests share a cluster.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.offline.resuming import miscounted
from service.__main__ import main
from service.dataset.command import INTERRUPTED
from tests.deploy.conftest import BIN, START_S, RayCluster, eventually, two_nodes
from tests.e2e.process import ROOT, environment
from tests.service.dataset.datasets import rows, write_files, write_tar

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "python").exists(), reason="make test-ray sets up the environment that has Ray"),
    pytest.mark.timeout(400),
]
IMAGES, SHARD_IMAGES, PART_ROWS = 4000, 250, 50
HOW = ["--runtime", "onnx", "--workers", "1", "--max-batch", "4", "--rows-per-part", str(PART_ROWS)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster of two nodes, each with room for one worker, and one that has none."""
    with two_nodes(tmp_path_factory.mktemp("ray"), head_cpus=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for first in range(0, IMAGES, SHARD_IMAGES):
        numbers = range(first, first + SHARD_IMAGES)
        write_tar(folder / f"{first:05d}.tar", [(f"{n:08d}.png", pictures[n % len(pictures)]) for n in numbers])
    return folder


@contextmanager
def classifying(model: Path, images: Path, out: Path, address: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(BIN / "python"), "-m", "service", "classify-dataset", str(images), str(out), "--model", str(model)]
    process = subprocess.Popen(
        [*command, "--ray", address, *HOW, *flags],
        cwd=ROOT,
        env=environment() | {"RAY_USAGE_STATS_ENABLED": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a process told that ends with this status."""
    _, told = process.communicate(timeout=2 * START_S)
    assert process.returncode == status, told
    return told


def made(out: Path) -> dict[str, int]:
    """The parts there are, and when each appeared."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


def rounded(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers without what the sizes of batches change in the last digits."""
    changed = ("margins", "probability", "top_probabilities")
    return [{name: value for name, value in row.items() if name not in changed} for row in answers]


def as_shards(where: Path, files: dict[str, bytes]) -> Path:
    (where / "some").mkdir()
    names = [*files]
    for number, start in enumerate(range(0, len(names), 60)):
        write_tar(where / "some" / f"{number}.tar", [(name, files[name]) for name in names[start : start + 60]])
    return where / "some"


def as_folder(where: Path, files: dict[str, bytes]) -> Path:
    return write_files(where / "some", files)


@pytest.mark.parametrize("make", [as_folder, as_shards])
def test_a_cluster_gives_the_answers_of_a_single_process(
    make: Callable[[Path, dict[str, bytes]], Path],
    nodes: RayCluster,
    artifact: Path,
    tmp_path: Path,
    pictures: list[bytes],
) -> None:
    files = {f"{number:04d}.png": pictures[number % len(pictures)] for number in range(130)}
    files["0077.png"] = b""
    images = make(tmp_path, files)
    with classifying(artifact, images, tmp_path / "cluster", nodes.address) as process:
        assert "130 images, 1 with errors" in finished(process)
    single = ["classify-dataset", str(images), str(tmp_path / "single"), "--model", str(artifact), *HOW]
    assert main([*single, "--isolation", "thread"]) == 0
    theirs, ours = rows(tmp_path / "cluster"), rows(tmp_path / "single")
    assert rounded(theirs) == rounded(ours)
    for row, other in zip(theirs, ours, strict=True):
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
    assert made(tmp_path / "cluster").keys() == made(tmp_path / "single").keys()


def test_a_run_goes_on_after_its_process_was_killed_or_interrupted(
    nodes: RayCluster, artifact: Path, shards: Path, tmp_path: Path
) -> None:
    with classifying(artifact, shards, tmp_path / "out", nodes.address) as process:
        eventually(lambda: len(made(tmp_path / "out")) >= 3)
    with classifying(artifact, shards, tmp_path / "out", nodes.address) as process:
        assert process.stderr is not None
        assert "has" in process.stderr.readline()
        # Those of the process that was killed may have gone on for a moment.
        there = made(tmp_path / "out")
        eventually(lambda: len(made(tmp_path / "out")) >= len(there) + 3)
        process.terminate()
        assert "the same command goes on" in finished(process, INTERRUPTED)
    there = made(tmp_path / "out")
    assert len(there) < IMAGES // PART_ROWS
    with classifying(artifact, shards, tmp_path / "out", nodes.address) as process:
        assert f"{IMAGES:,} images, 0 with errors" in finished(process)
    assert miscounted(tmp_path / "out", IMAGES) == []
    assert there.items() <= made(tmp_path / "out").items()
    assert not list((tmp_path / "out").glob(".unfinished*"))


def test_a_node_that_is_killed_loses_and_doubles_nothing(
    nodes: RayCluster, artifact: Path, shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with classifying(artifact, shards, out, nodes.address) as process:
        # Both are at it: parts of two sources appear that are not finished.
        eventually(lambda: {f"part-{source:05d}-00000.parquet" for source in (0, 1)} <= made(out).keys())
        nodes.kill("second")
        there = made(out)
        assert len(there) < IMAGES // PART_ROWS
        told = finished(process)
    nodes.add("second")
    assert f"{IMAGES:,} images, 0 with errors" in told
    assert miscounted(out, IMAGES) == []
    assert there.items() <= made(out).items()


def test_what_actors_cannot_run_is_told_in_one_line(
    nodes: RayCluster, artifact: Path, shards: Path, tmp_path: Path
) -> None:
    with classifying(artifact, shards, tmp_path / "out", nodes.address, "--runtime", "torchscript") as process:
        told = finished(process, 1).splitlines()
    assert told[-1].startswith("error: ")
    assert "torch" in told[-1]
    assert not [line for line in told if "Traceback" in line]


def test_an_address_without_a_cluster_is_told_at_once(artifact: Path, shards: Path, tmp_path: Path) -> None:
    with classifying(artifact, shards, tmp_path / "out", "127.0.0.1:1") as process:
        (line,) = finished(process, 1).splitlines()
    assert line.startswith("error: --ray 127.0.0.1:1: ")
