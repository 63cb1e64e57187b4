"""The client as a distribution of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path
from zipfile import ZipFile

import pytest

import convnet_aig_client
from convnet_aig_client import AsyncClient, Client
from tests.e2e.process import ROOT

PACKAGE = ROOT / "clients/python/convnet_aig_client"


@pytest.mark.slow
def test_wheel_has_all_modules_and_says_that_they_are_typed(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="builds the wheel")
    source = tmp_path / "python"
    shutil.copytree(PACKAGE.parent, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as files:
        packed = {name for name in files.namelist() if name.startswith("convnet_aig_client/")}
        (metadata,) = [files.read(name).decode() for name in files.namelist() if name.endswith("/METADATA")]
    assert packed == {f"convnet_aig_client/{path.name}" for path in PACKAGE.iterdir() if path.is_file()}
    assert "convnet_aig_client/py.typed" in packed
    assert [line for line in metadata.splitlines() if line.startswith("Requires-Dist")] == [
        "Requires-Dist: httpx<1,>=0.28"
    ]


def test_every_public_name_exists() -> None:
    assert all(hasattr(convnet_aig_client, name) for name in convnet_aig_client.__all__)


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = {name: of for name, of in vars(kind).items() if not name.startswith("_")}
        return {
            name: [str(parameter) for parameter in signature(of).parameters.values()] for name, of in public.items()
        }

    assert methods(Client) == methods(AsyncClient)
