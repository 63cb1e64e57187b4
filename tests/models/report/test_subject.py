from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.config import CIFAR10_LABELS
from models.examples import DataError
from models.report.subject import groups_of

LABELS = ("cat", "dog", "eel")


def test_groups_of_cifar10_are_known() -> None:
    groups = groups_of(CIFAR10_LABELS, None)
    assert set(groups) == {"animals", "man-made things"}
    assert sorted(label for members in groups.values() for label in members) == sorted(CIFAR10_LABELS)
    assert groups_of(LABELS, None) == {}


def test_groups_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "groups.json"
    file.write_text(json.dumps({"pets": ["cat", "dog"], "fish": ["eel"]}))
    assert groups_of(LABELS, file) == {"pets": ("cat", "dog"), "fish": ("eel",)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"pets": ["cat", "fox"]}', "'fox', which is not a class"),
        ('{"pets": ["cat"], "cats": ["cat"]}', "'cat' twice"),
        ('["cat"]', "must hold JSON"),
        ("pets: cat", "must hold JSON"),
        ('{"pets": 3}', "must hold JSON"),
    ],
)
def test_wrong_file_says_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "groups.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        groups_of(LABELS, file)
