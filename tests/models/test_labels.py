from __future__ import annotations

from pathlib import Path

import pytest

from models.examples import DataError
from models.labels import read_labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.json", '["tench", "goldfish", "great white shark"]'),
        ("labels.json", '{"1": "goldfish", "0": "tench", "2": "great white shark"}'),
        ("labels.txt", "tench\ngoldfish\r\ngreat white shark\n"),
    ],
)
def test_labels_are_in_the_order_of_the_logits(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name) == ("tench", "goldfish", "great white shark")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.json", b"[", "are no JSON"),
        ("labels.json", b'{"0": "cat", "2": "dog"}', "not numbered from 0 to 1"),
        ("labels.json", b'["cat", 3]', "neither a list of names"),
        ("labels.json", b'"cat"', "neither a list of names"),
        ("labels.txt", b"cat\n\ndog\n", "neither a list of names"),
        ("labels.txt", b"\xff\xfe", "cannot read the labels"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / name)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the labels"):
        read_labels(tmp_path / "labels.txt")
