from __future__ import annotations

import json
import subprocess
import tomllib
from typing import Any

import pytest

from tests.e2e.process import ROOT
from tests.e2e.stack import DOWNLOAD_S, Stack, docker

pytestmark = pytest.mark.timeout(2 * DOWNLOAD_S)  # building downloads

# Almost half of it is LLVM, which comes with the code for all processors.
_MOST_ADDED_BYTES = 380_000_000


def _inspect(stack: Stack) -> dict[str, Any]:
    return json.loads(docker("image", "inspect", stack.image))[0]


def _inside(stack: Stack, *command: str, setting: str = "AIG_LOG_LEVEL=info") -> subprocess.CompletedProcess[str]:
    """Run a command in a container as confined as the service's."""
    confined = ("--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--env", setting)
    whole = ["docker", "run", *confined, "--entrypoint", command[0], stack.image, *command[1:]]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


def test_image_adds_little_to_its_base(stack: Stack) -> None:
    base = json.loads(docker("image", "inspect", "python:3.12-slim-bookworm"))[0]
    assert _inspect(stack)["Size"] - base["Size"] < _MOST_ADDED_BYTES


def test_image_holds_nothing_to_build_install_or_train_with(stack: Stack) -> None:
    imports = "\n".join(
        f"try:\n import {name}\n print('{name}')\nexcept ImportError:\n pass"
        for name in ("torch", "pip", "setuptools", "ensurepip", "models", "export")
    )
    programs = "import shutil; print(*filter(shutil.which, 'pip pip3 gcc cc make apt-get perl'.split()))"
    found = _inside(stack, "python", "-c", f"{imports}\n{programs}")
    assert (found.returncode, found.stdout.split()) == (0, []), found.stderr


def _installed(stack: Stack) -> set[str]:
    listing = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    return {_canonical(line) for line in _inside(stack, "python", "-c", listing).stdout.split()}


def test_packages_are_those_of_the_constraints(stack: Stack) -> None:
    installed = _installed(stack)
    pinned = {_canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "onnxruntime" in {line.split("==")[0] for line in installed}
    assert installed - pinned == {f"{project['name']}=={project['version']}"}


def test_list_of_parts_names_every_package_and_its_version(stack: Stack) -> None:
    told = json.loads(_inside(stack, "cat", "/app/sbom.cdx.json").stdout)
    assert told["bomFormat"] == "CycloneDX"
    parts = [*told["components"], told["metadata"]["component"]]
    assert {_canonical(f"{part['name']}=={part['version']}") for part in parts} == _installed(stack)
    assert not [part["name"] for part in told["components"] if not part["purl"].startswith("pkg:pypi/")]


def _canonical(requirement: str) -> str:
    return requirement.lower().replace("_", "-")


def test_service_is_an_ordinary_user_with_a_fixed_number(stack: Stack) -> None:
    assert _inspect(stack)["Config"]["User"] == "10001:10001"
    found = _inside(stack, "python", "-c", "import os; print(os.getuid(), os.getgid(), os.getgroups())")
    assert found.stdout == "10001 10001 [10001]\n"


def test_no_program_gives_its_user_more_rights(stack: Stack) -> None:
    found = _inside(stack, "find", "/", "-xdev", "-perm", "/6000", "-type", "f")
    assert found.stdout == ""


def test_labels_tell_what_the_image_is(stack: Stack) -> None:
    labels = _inspect(stack)["Config"]["Labels"]
    told = {name.removeprefix("org.opencontainers.image."): text for name, text in labels.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert told["title"] == project["name"]
    assert told["version"] == project["version"]
    assert told["licenses"] == project["license"]
    assert told["base.name"].partition("@")[0] == "docker.io/library/python:3.12-slim-bookworm"
    assert told["description"]
    assert told["revision"]


def test_gpu_that_is_not_there_is_told_and_not_replaced_by_the_cpu(stack: Stack) -> None:
    refused = _inside(stack, "python", "-m", "service", setting="AIG_DEVICE=cuda")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        "error: no GPU can be used: this machine shows no NVIDIA driver (in a container: start it with its GPUs); "
        "--device auto serves with the CPU"
    ]


def test_onnx_runtime_reports_to_nobody(stack: Stack) -> None:
    found = _inside(stack, "python", "-c", "import os, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])")
    # Where it would, it complains that it cannot write its device's number to this file system.
    assert (found.stdout.strip(), found.stderr) == ("1", "")
