from __future__ import annotations

import io

import pytest
from PIL import Image

from bench.gpu import sanitizer
from bench.gpu.serving import Busy, photographs, sampled


@pytest.mark.parametrize(
    ("told", "status", "errors"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, 0),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)", 0, 2),
        ("========= ERROR SUMMARY: 1 error", 1, 1),
        ("Traceback", 1, None),
    ],
)
def test_errors_are_counted_as_the_tool_tells_them(told: str, status: int, errors: int | None) -> None:
    found = sanitizer.summary(told, status)
    assert found["errors"] == errors
    assert ("told" in found) == (errors != 0)


def test_program_that_failed_under_the_tool_is_not_right() -> None:
    assert sanitizer.summary("ERROR SUMMARY: 0 errors", 1)["told"]


def test_first_and_last_sample_tell_of_other_times() -> None:
    assert Busy([0, 90, 100, 90, 0]).share == 0.9
    assert Busy([0, 100]).share is None


def test_without_the_tool_that_tells_it_is_not_known_how_busy_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with sampled() as busy:
        pass
    assert busy.share is None
    assert "nvidia-smi cannot be run" in (busy.problem or "")


def test_photographs_are_files_of_their_size() -> None:
    (file,) = photographs(1)
    assert Image.open(io.BytesIO(file)).size == (500, 375)
    assert len(file) > 30_000
