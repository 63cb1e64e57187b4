"""Markers, by which `make test-fast` leaves tests out."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from tests.e2e.process import ROOT

PROGRAM = """
import pytest

class Collected:
    def pytest_collection_finish(self, session):
        print("marks:", *sorted({mark.name for item in session.items for mark in item.iter_markers()}))

raise SystemExit(pytest.main(["--collect-only", "-qq"], plugins=[Collected()]))
"""


def _declared() -> set[str]:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert "--strict-markers" in options["addopts"]
    return {marker.partition(":")[0] for marker in options["markers"]}


@pytest.mark.slow
def test_every_marker_that_is_declared_is_used() -> None:
    finished = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr
    (told,) = [line for line in finished.stdout.splitlines() if line.startswith("marks:")]
    assert _declared() <= set(told.split())


def test_fast_tests_are_those_without_any_marker() -> None:
    (left_out,) = re.findall(r'-m "not \((.*)\)"', (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set(left_out.split(" or ")) == _declared()
