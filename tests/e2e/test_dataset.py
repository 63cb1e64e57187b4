"""Datasets classified by a process of its own, which is killed, interrupted, or loses its workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.offline.resuming import miscounted
from service.dataset.command import INTERRUPTED
from tests.e2e.process import ROOT, environment
from tests.processes import children, is_running
from tests.runtimes import PATIENCE_S, wait_until
from tests.service.dataset.datasets import rows, write_tar

pytestmark = pytest.mark.timeout(300)  # a process takes seconds to start, and several are started one after the other

IMAGES, PART_ROWS, PARTS = 1200, 40, 31  # of three shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes]) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for first in range(0, IMAGES, 420):
        numbers = range(first, min(first + 420, IMAGES))
        write_tar(folder / f"{first:05d}.tar", [(f"{n:08d}.png", pictures[n % len(pictures)]) for n in numbers])
    return folder


@contextmanager
def classifying(artifact: Path, shards: Path, out: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "service", "classify-dataset", str(shards), str(out), "--model", str(artifact)]
    how = ["--runtime", "onnx", "--workers", "2", "--max-batch", "4", "--rows-per-part", str(PART_ROWS), *flags]
    process = subprocess.Popen(
        [*command, *how], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def parts(out: Path) -> dict[str, int]:
    """The parts there are, and when each was made."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


def count(out: Path) -> int:
    """How many parts there are, asked often."""
    return sum(name.startswith("part-") for name in os.listdir(out)) if out.exists() else 0  # noqa: PTH208


def finish(artifact: Path, shards: Path, out: Path) -> str:
    with classifying(artifact, shards, out) as process:
        _, printed = process.communicate(timeout=2 * PATIENCE_S)
        assert process.returncode == 0, printed
    return printed


def test_process_that_is_killed_again_and_again_does_nothing_twice_and_forgets_nothing(
    artifact: Path, shards: Path, tmp_path: Path
) -> None:
    out, made = tmp_path / "out", dict[str, int]()
    for least in (0, 1, 13, 22):
        with classifying(artifact, shards, out) as process:
            wait_until(lambda least=least: (out / "_run.json").exists() and count(out) >= least)  # type: ignore[misc]
            workers = children(process.pid)
            process.kill()
            assert process.wait(PATIENCE_S) == -signal.SIGKILL
        for pid in workers:
            wait_until(lambda pid=pid: not is_running(pid))  # type: ignore[misc]
        assert made.items() <= parts(out).items()
        made = parts(out)
    assert len(made) < PARTS, "it was never killed in the midst"
    printed = finish(artifact, shards, out)
    assert f"{IMAGES:,} images, 0 with errors" in printed
    assert made.items() <= parts(out).items()
    assert len(parts(out)) == PARTS
    assert miscounted(out, IMAGES) == []
    assert [row["name"] for row in rows(out)] == [f"{number:08d}.png" for number in range(IMAGES)]


def test_part_that_is_gone_is_made_again_and_no_other(artifact: Path, shards: Path, tmp_path: Path) -> None:
    finish(artifact, shards, tmp_path)
    made = parts(tmp_path)
    gone = ["part-00000-00003.parquet", "part-00001-00010.parquet", "part-00002-00000.parquet"]
    for name in gone:
        (tmp_path / name).unlink()
    finish(artifact, shards, tmp_path)
    assert {name for name, made_at in parts(tmp_path).items() if made.get(name) != made_at} == set(gone)
    assert miscounted(tmp_path, IMAGES) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_process_that_is_interrupted_says_how_to_go_on(
    number: signal.Signals, artifact: Path, shards: Path, tmp_path: Path
) -> None:
    # A second worker might still be starting, and not know yet that the keyboard is none of its business.
    with classifying(artifact, shards, tmp_path, "--workers", "1") as process:
        wait_until(lambda: count(tmp_path) >= 2)
        os.killpg(process.pid, number)  # as a terminal does, to the workers too
        _, printed = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == INTERRUPTED
    assert f"the same command goes on with what {tmp_path} does not have" in printed
    assert "Traceback" not in printed
    there = len(rows(tmp_path))
    assert 0 < there < IMAGES
    assert re.search(rf"^{there:,} images, 0 with errors$", printed, re.MULTILINE)
    assert not list(tmp_path.glob(".unfinished*"))
    assert f"has {there:,} images already" in finish(artifact, shards, tmp_path)
    assert miscounted(tmp_path, IMAGES) == []


def test_worker_that_is_killed_costs_no_image(artifact: Path, shards: Path, tmp_path: Path) -> None:
    with classifying(artifact, shards, tmp_path) as process:
        wait_until(lambda: count(tmp_path) >= 2)
        first, second = children(process.pid)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len({*children(process.pid)} - {first}) == 2)
        before = count(tmp_path)
        wait_until(lambda: count(tmp_path) > before + 4)  # lest an image lose both of its workers
        os.kill(second, signal.SIGKILL)
        _, printed = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, printed
    assert "has taken the place of" in printed
    assert miscounted(tmp_path, IMAGES) == []


def test_second_process_is_refused_while_the_first_one_writes(artifact: Path, shards: Path, tmp_path: Path) -> None:
    with classifying(artifact, shards, tmp_path) as first:
        wait_until(lambda: (tmp_path / "_run.json").exists())
        with classifying(artifact, shards, tmp_path) as second:
            _, printed = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 1
        assert printed == f"error: another process is writing to {tmp_path}\n"
        assert first.wait(2 * PATIENCE_S) == 0
    assert miscounted(tmp_path, IMAGES) == []


def test_progress_is_told_in_a_bar_on_a_terminal(artifact: Path, shards: Path, tmp_path: Path) -> None:
    here, there = os.openpty()
    termios.tcsetwinsize(there, (24, 100))
    command = [sys.executable, "-m", "service", "classify-dataset", str(shards), str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, "--model", str(artifact), "--runtime", "onnx"], cwd=ROOT, env=environment(), stderr=there
    ) as process:
        os.close(there)
        told = b"".join(_read(here))
        assert process.wait(PATIENCE_S) == 0
    assert re.search(r"100%.*1200/1200 \[.*images/s\]", told.decode())
    assert "1,200 images, 0 with errors" in told.decode()


def _read(terminal: int) -> Iterator[bytes]:
    try:
        while data := os.read(terminal, 65_536):
            yield data
    except OSError:  # whoever wrote has gone
        pass
    finally:
        os.close(terminal)
