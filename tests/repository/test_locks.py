"""The files of packages with digests, held against what they are made of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.e2e.process import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = sorted([*ROOT.glob("requirements-*.txt"), *(ROOT / "docker").glob("requirements-*.txt")])
_PACKAGE = re.compile(r"([a-z0-9-]+)==(\S+)(?: ; [^\\]+)? \\")
_DIGEST = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _locked(path: Path) -> dict[str, str]:
    found = map(_PACKAGE.fullmatch, path.read_text(encoding="utf-8").splitlines())
    return {match[1]: match[2] for match in found if match}


def _pinned(*names: str) -> dict[str, str]:
    lines = [line for name in names for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {_canonical(name): version for name, version in pairs}


def _asked_for(runtime: str) -> set[str]:
    extras = PROJECT["optional-dependencies"]
    asked = [
        *PROJECT["dependencies"],
        *(each for name in ("serve", "heif", "tracing", runtime) for each in extras[name]),
    ]
    return {_canonical(re.match(r"[\w.-]+", each)[0]) for each in asked}  # type: ignore[index]


@pytest.mark.parametrize("runtime", ["cpu", "gpu"])
def test_service_is_locked_to_the_versions_that_were_tested(runtime: str) -> None:
    locked = _locked(ROOT / f"requirements-serve-{runtime}.txt")
    pinned = _pinned("constraints.txt", *(["docker/constraints-gpu.txt"] if runtime == "gpu" else []))
    assert locked.items() <= pinned.items()
    assert _asked_for(runtime) <= locked.keys()
    assert "torch" not in locked


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_lock_has_packages_and_digests_and_names_no_place(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if not (_PACKAGE.fullmatch(line) or _DIGEST.fullmatch(line))]
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if _PACKAGE.fullmatch(line):
            assert _DIGEST.fullmatch(after), f"{line} has no digest"


def test_there_is_a_lock_for_whatever_installs() -> None:
    assert [path.name for path in LOCKS] == [
        "requirements-sbom.txt",
        "requirements-serve-cpu.txt",
        "requirements-serve-gpu.txt",
    ]
