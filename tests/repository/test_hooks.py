"""What runs by itself, before a commit and on every push: the Makefile's targets, and nothing of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.e2e.process import ROOT

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
(WORKFLOW,) = (ROOT / ".github" / "workflows").glob("*.yml")


def _hooks() -> dict[str, dict[str, Any]]:
    (own,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert own["repo"] == "local"
    return {hook["id"]: hook for hook in own["hooks"]}


def test_hooks_make_targets_that_there_are() -> None:
    entries = {name: hook["entry"] for name, hook in _hooks().items() if hook["language"] == "system"}
    assert entries == {"check": "make check", "test-fast": "make test-fast"}
    assert TARGETS.issuperset(entries)


def test_workflow_makes_targets_that_there_are_and_does_nothing_else() -> None:
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make ${{ matrix.target }}"]
    made = {target for targets in job["strategy"]["matrix"]["target"] for target in targets.split()}
    assert made == {"check", "test-fast", "test", "test-clients", "test-ray", "docker-test"}
    assert made < TARGETS


def test_actions_of_others_are_named_by_their_digests() -> None:
    used = re.findall(r"uses: *(\S+)", WORKFLOW.read_text(encoding="utf-8"))
    assert used
    assert not [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)]


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("x" * 72, False),
        ("x" * 73, True),
        ("short\n\n" + "x" * 200, False),
        ("é" * 72 + "\n", False),
        ("x" * 73 + "\n\nbody\n", True),
        ("é€😀" * 24 + "x", True),
    ],
)
def test_subject_has_at_most_72_letters(message: str, refused: bool) -> None:
    hook = _hooks()["subject"]
    assert (hook["stages"], hook["language"], hook["args"]) == (["commit-msg"], "pygrep", ["--multiline"])
    # As pre-commit compiles what a pygrep hook looks for in several lines.
    assert bool(re.search(hook["entry"].encode(), message.encode(), re.MULTILINE | re.DOTALL)) == refused
