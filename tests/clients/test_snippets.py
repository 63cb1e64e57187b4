"""The page about clients: each of its programs runs as it stands there, but for the address of the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import url_of
from tests.e2e.process import ROOT
from tests.service.http_server import RunningServer

PAGE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"
# By language: the program, its arguments before the file, and the file's name.
PROGRAMS = {
    "go": (["go", "run"], "main.go"),
    "js": (["node"], "main.mjs"),
    "python": ([sys.executable], "main.py"),
    "sh": (["sh"], "main.sh"),
}
# By what a program has in it: what it prints.
PRINTS = {
    "classify/batch": "cat ship",
    "classify_batch": "cat ship",
    "classify_files": "cat ship",
    "asyncio": "cat ship",
    "no image": "415 not_an_image",
    "": "cat",
}


def _snippets() -> list[tuple[str, str]]:
    return [(language, text) for language, text in BLOCKS if not text.startswith("openapi-python-client")]


def _run(language: str, text: str, folder: Path, url: str) -> str:
    command, name = PROGRAMS[language]
    (folder / name).write_text(text.replace(ADDRESS, url), encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "clients/python"),
        "GOPROXY": "off",
        "GOCACHE": str(folder.parent / "go-build"),
    }
    ended = subprocess.run([*command, name], cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("language", "text"), _snippets(), ids=lambda value: value if value in PROGRAMS else "")
def test_program_of_the_page_runs(
    language: str, text: str, shipped: RunningServer, photographs: Path, tmp_path: Path
) -> None:
    program = "curl" if language == "sh" else PROGRAMS[language][0][0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    assert ADDRESS in text
    folder = Path(shutil.copytree(photographs, tmp_path / "here"))
    printed = _run(language, text, folder, url_of(shipped))
    expected = next(words for part, words in PRINTS.items() if part in text)
    assert all(re.search(rf"\b{word}\b", printed) for word in expected.split()), printed


def test_every_language_has_one_image_and_a_batch() -> None:
    for language in PROGRAMS:
        texts = [text for of, text in _snippets() if of == language]
        assert any("batch" not in text.lower() for text in texts)
        assert any("batch" in text.lower() and "budget" in text and "0.4" in text for text in texts)
