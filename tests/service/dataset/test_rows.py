from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from artifact.manifest import read_manifest
from service.classify.graph import best_classes, gates
from service.dataset.items import Unreadable
from service.dataset.rows import Columns, Rows
from service.engine.errors import InferenceFailed
from service.engine.job import Answer
from service.images.decoding import CorruptImage
from tests.runtimes import echo_manifest


def random_answer(seed: int) -> Answer:
    random = np.random.default_rng(seed)
    executed = (True, *(random.random(2) < 0.5).tolist())
    return Answer(tuple(random.normal(size=3)), tuple(random.normal(size=2)), executed, 100 + seed, 1, 0.0, 0.0, 0.0)


def test_rows_tell_what_an_answer_tells() -> None:
    columns = Columns(echo_manifest(), 2, {"model_name": "echo"})
    rows, answers = Rows(columns, 200), [random_answer(seed) for seed in range(150)]
    for row in np.random.default_rng(0).permutation(150).tolist():
        rows.note(row, f"{row}.png", answers[row])
    table = rows.table("a.tar", 1000, as_completed=False)
    assert table.schema.metadata[b"model_name"] == b"echo"
    labels = echo_manifest().labels
    for row, (answer, told) in enumerate(zip(answers, table.to_pylist(), strict=True)):
        best = best_classes(answer.logits, 2)
        assert (told["source"], told["row"], told["name"]) == ("a.tar", 1000 + row, f"{row}.png")
        assert told["top_labels"] == [labels[index] for index, _ in best]
        assert told["top_probabilities"] == pytest.approx([probability for _, probability in best])
        assert (told["label"], told["probability"]) == (told["top_labels"][0], told["top_probabilities"][0])
        assert told["path"] == "".join("01"[ran] for ran in answer.executed)
        assert told["macs"] == answer.macs
        assert told["margins"] == pytest.approx(answer.margins)
        assert told["error"] is None
    assert rows.macs == sum(answer.macs for answer in answers)


def test_image_that_failed_has_only_its_error() -> None:
    rows = Rows(Columns(echo_manifest(), 5), 10)
    rows.note(1, "b", CorruptImage("the image is truncated or damaged"))
    rows.note(3, "d", Unreadable("gone"))
    rows.note(0, "a", random_answer(0))
    rows.note(2, "c", InferenceFailed())
    first, *failed = rows.table("x", 0, as_completed=False).to_pylist()
    assert first["error"] is None
    assert [row["error"]["type"] for row in failed] == ["corrupt_image", "inference_failed", "unreadable"]
    assert failed[0]["error"]["message"] == "the image is truncated or damaged"
    for row in failed:
        assert {name for name, value in row.items() if value is not None} == {"source", "row", "name", "error"}
    assert rows.errors == {"corrupt_image": 1, "inference_failed": 1, "unreadable": 1}


def test_rows_can_stand_in_the_order_in_which_they_were_done() -> None:
    rows = Rows(Columns(echo_manifest(), 1), 10)
    for row in (2, 0, 1):
        rows.note(row, str(row), random_answer(row))
    told = rows.table("x", 0, as_completed=True).to_pylist()
    assert [(row["name"], row["row"], row["macs"]) for row in told] == [("2", 2, 102), ("0", 0, 100), ("1", 1, 101)]


def test_part_without_images_has_all_columns() -> None:
    columns = Columns(echo_manifest(), 5)
    table = Rows(columns, 10).table("x", 0, as_completed=False)
    assert table.num_rows == 0
    assert table.schema == columns.schema


def test_names_that_are_no_text_can_still_be_told_apart() -> None:
    rows = Rows(Columns(echo_manifest(), 1), 2)
    for row, name in enumerate(("\udcff.png", "é.png")):
        rows.note(row, name, Unreadable("gone"))
    assert rows.table("x", 0, as_completed=False).column("name").to_pylist() == ["\\udcff.png", "é.png"]


def test_gates_that_were_not_reached_have_no_margin() -> None:
    manifest = read_manifest(Path("model_repository/cascade-14-26-cifar10/1"))
    executed = [block.within is None and block.kind == "residual" for block in manifest.blocks]
    count = len(manifest.gated_indices)
    answer = Answer((0.0,) * 10, (0.5,) * count, tuple(executed), 1, 1, 0.0, 0.0, 0.0)
    rows = Rows(Columns(manifest, 1), 1)
    rows.note(0, "a", answer)
    (told,) = rows.table("x", 0, as_completed=False).column("margins").to_pylist()
    assert told == [margin for margin, _ in gates(manifest, answer)]


def test_answers_are_kept_as_numbers_of_fixed_size() -> None:
    rows = Rows(Columns(echo_manifest(), 1), 1000)
    for row in range(1000):
        rows.note(row, "a", random_answer(row))
        assert len(rows._waiting) < 64
    assert isinstance(rows.table("x", 0, as_completed=False), pa.Table)


def test_source_with_a_name_that_is_no_text_is_told() -> None:
    rows = Rows(Columns(echo_manifest(), 1), 1)
    rows.note(0, "a.png", Unreadable("gone"))
    table = rows.table(os.fsdecode(b"\xff.tar"), 0, as_completed=False)
    assert table["source"].to_pylist() == ["\\udcff.tar"]
