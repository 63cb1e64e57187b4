from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from service.engine.errors import RuntimeUnavailable
from service.engine.runtimes import selection
from tests.service.engine.runtimes.lab import (
    COMPILED,
    FP32,
    OPENVINO,
    Lab,
    chosen,
    logits_off,
    off_when_forced,
    raises,
    tried,
)


def test_choice_is_remembered_and_not_measured_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.offer(COMPILED, milliseconds=2)
    lab.withdraw(OPENVINO, RuntimeUnavailable("it needs a library"))
    first = lab.choose()
    monkeypatch.setattr(selection, "_measure", lambda *_: pytest.fail("it was measured again"))
    second = lab.choose()
    assert lab.opened == [COMPILED]
    assert second is not first
    assert chosen(second) == ("compiled", "fp32")
    assert second.candidates == first.candidates
    assert tried(second)["openvino", "fp32"].problem == "it needs a library"


def test_damaged_memory_is_made_again(lab: Lab) -> None:
    lab.choose()
    whole = lab.selection_file.read_bytes()
    lab.selection_file.write_bytes(whole[:-2])
    lab.offer(OPENVINO, milliseconds=2)
    assert chosen(lab.choose()) == ("openvino", "fp32")
    assert len(lab.opened) >= 3
    assert chosen(lab.choose()) == ("openvino", "fp32")
    assert lab.opened == [OPENVINO]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"{}",
        b"[]",
        b"[1]",
        b'["onnx"]',
        b'[{"a": 1}]',
        b'[{"runtime": "magic", "precision": "fp32", "image_ms": 1.0}]',
        b'[{"runtime": "onnx", "precision": "fp32", "image_ms": null}]',
        b'[{"runtime": "onnx", "precision": "fp32", "image_ms": "soon"}]',
        b'[{"runtime": "onnx", "precision": "fp32", "image_ms": 1.0}, 2]',
    ],
)
def test_nonsense_in_the_memory_is_made_again(lab: Lab, content: bytes) -> None:
    lab.choose()
    lab.selection_file.write_bytes(sha256(content).hexdigest().encode() + b"\n" + content)
    lab.offer(OPENVINO, milliseconds=2)
    assert chosen(lab.choose()) == ("openvino", "fp32")
    assert chosen(lab.choose()) == ("openvino", "fp32")
    assert lab.opened == [OPENVINO]


@pytest.mark.parametrize("how", ["wrong", "wrong with forced gates", "raises", "unavailable", "broken"])
def test_remembered_runtime_that_fails_is_replaced(lab: Lab, how: str) -> None:
    lab.offer(COMPILED, milliseconds=2)
    lab.offer(OPENVINO, milliseconds=5)
    assert chosen(lab.choose()) == ("compiled", "fp32")
    wrong = {"wrong": logits_off, "wrong with forced gates": off_when_forced(1), "raises": raises}
    if how in wrong:
        lab.offer(COMPILED, 2, wrong[how])
    else:
        problem = "no such library"
        lab.withdraw(COMPILED, RuntimeUnavailable(problem) if how == "unavailable" else OSError(problem))
    runtime = lab.choose()
    assert chosen(runtime) == ("openvino", "fp32")
    assert tried(runtime)["compiled", "fp32"].problem is not None
    assert chosen(lab.choose()) == ("openvino", "fp32")
    assert lab.opened == [OPENVINO]


def test_model_that_cannot_be_written_beside_is_remembered_in_the_users_cache(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(lab.exported.folder, tmp_path / "copy")
    (folder / ".cache").write_bytes(b"")  # in the way, even of root
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    lab.offer(COMPILED, milliseconds=2)
    lab.choose(folder=folder)
    assert [path.name for path in (tmp_path / "xdg").rglob("selection-*")] == ["selection-fp32.json"]
    assert chosen(lab.choose(folder=folder)) == ("compiled", "fp32")
    assert lab.opened == [COMPILED]


def test_without_a_place_to_remember_every_opening_chooses_anew(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(lab.exported.folder, tmp_path / "copy")
    (folder / ".cache").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
    lab.offer(COMPILED, milliseconds=2)
    for _ in range(2):
        assert chosen(lab.choose(folder=folder)) == ("compiled", "fp32")
        assert set(FP32) <= set(lab.opened)
