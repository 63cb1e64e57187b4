"""The Makefile with stand-ins for the programs that it calls."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.process import ROOT

PROGRAM = '#!/bin/sh\nfor each; do printf "%s\\n" "$each"; done\n'
DIGESTS = [f"sha256:{digit * 64}" for digit in "0f"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose path has a space, with an environment that is set up."""
    checkout = tmp_path / "a checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / "docker").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements-serve-cpu.txt", "docker-compose.yml", "docker/Dockerfile"):
        shutil.copyfile(ROOT / name, checkout / name)
    _program(checkout / ".venv" / "bin" / "python", PROGRAM)
    (checkout / ".venv" / ".serve").touch()
    return checkout


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _make(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    searched = os.pathsep.join(filter(None, [str(path or ""), os.environ["PATH"]]))
    environment = {"PATH": searched, "HOME": str(folder)}
    command = ["make", "--silent", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_what_is_served_may_have_spaces_in_its_path(folder: Path) -> None:
    made = _make(folder, "serve", "MODEL=my models/net/1", "HOST=127.0.0.1,::1", "PORT=81")
    assert made.stdout.splitlines() == [
        *("-m", "service", "serve", "--model", "my models/net/1", "--host", "127.0.0.1,::1", "--port", "81")
    ], made.stderr


@pytest.mark.parametrize("name", ["tpu", "cpu gpu", ""])
def test_runtime_that_does_not_exist_is_refused(folder: Path, name: str) -> None:
    made = _make(folder, "serve", f"RUNTIME={name}")
    assert made.returncode == 2
    assert f'RUNTIME is cpu or gpu, not "{name}"' in made.stderr


def test_help_lists_every_target_that_people_call(folder: Path) -> None:
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony
    told = [line.split()[0] for line in _make(folder, "help").stdout.splitlines()]
    assert sorted(told) == sorted(phony[1].replace("\\\n", " ").split())


def test_images_are_pinned_to_what_the_registry_says_and_again_when_it_says_otherwise(
    folder: Path, tmp_path: Path
) -> None:
    for digest in DIGESTS:
        _program(tmp_path / "docker", f'#!/bin/sh\n[ "$1 $2" = "buildx imagetools" ] && echo {digest}\n')
        made = _make(folder, "pin", path=tmp_path)
        assert made.returncode == 0, made.stderr
        texts = [(folder / name).read_text(encoding="utf-8") for name in ("docker/Dockerfile", "docker-compose.yml")]
        used = [image for text in texts for image in re.findall(r"^(?:ARG BASE=| *image: )(\S+)$", text, re.MULTILINE)]
        others = [image for image in used if not image.startswith("convnet-aig-serving:")]
        assert len(others) == 4
        assert [image.partition("@")[2] for image in others] == [digest] * 4
        assert not [*folder.rglob("*.before")]


def test_registry_that_does_not_answer_changes_nothing(folder: Path, tmp_path: Path) -> None:
    _program(tmp_path / "docker", "#!/bin/sh\nexit 1\n")
    assert _make(folder, "pin", path=tmp_path).returncode == 2
    assert (folder / "docker" / "Dockerfile").read_bytes() == (ROOT / "docker" / "Dockerfile").read_bytes()
