from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.precisions import Answers, Precise, beside, main, problems
from service.engine.runtimes.base import Precision
from tests.conftest import MakeFolders

pytestmark = pytest.mark.slow


def _answers(predictions: list[int], opened: list[bool], image_ms: float = 1.0) -> Answers:
    """To images of class 1."""
    given = np.array(predictions)
    return Answers(given == 1, given, np.array(opened)[:, None], 0.5, image_ms)


def _row(precision: Precision, difference: float, image_ms: float) -> Precise:
    return Precise(f"compiled {precision}", precision, 0.9, difference, 0.01, 0.6, 0.99, 0.99, 0.05, image_ms)


def test_answers_are_compared_image_by_image() -> None:
    exact = _answers([1, 1, 0, 2], [True, True, False, False])
    row = beside(exact, "compiled int8", "int8", _answers([1, 0, 0, 3], [True, False, False, False], 0.3))
    assert (row.accuracy, row.difference, row.equal_predictions, row.equal_gates) == (0.25, -0.25, 0.5, 0.75)
    assert row.other_paths == 0.25
    assert row.interval == pytest.approx(1.96 * np.std([0, -1, 0, 0]) / 2)
    assert (row.macs, row.image_ms) == (0.5, 0.3)
    assert beside(exact, "compiled fp32", "fp32", exact).difference == 0


def test_precision_is_worth_having_where_it_is_faster_and_loses_little() -> None:
    good = [_row("fp32", 0, 1.0), _row("bf16", -0.0049, 0.5), _row("int8", 0.001, 0.25)]
    assert problems(good) == []
    assert problems([*good[:2], _row("int8", -0.005, 0.25)]) == ["compiled int8 loses 0.50% of accuracy"]
    assert problems([*good[:2], _row("int8", 0, 0.5)]) == ["compiled int8 takes 0.500 ms, compiled bf16 0.500"]


def test_shipped_model_is_measured_on_images_that_are_held_out(
    tmp_path: Path, make_class_folders: MakeFolders, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llvmlite", reason="needs llvmlite")
    data = make_class_folders(tmp_path / "data", ["bee", "cat"], each=8, side=32)
    main(["--data", str(data), "--held-out", "4"])
    output = capsys.readouterr().out.splitlines()
    rows = json.loads(output[-1])["rows"]
    assert rows[0]["runtime"] == "compiled fp32"
    assert (rows[0]["difference"], rows[0]["equal_gates"]) == (0, 1)
    assert rows[-1]["runtime"] == "ONNX Runtime int8"
    assert all(0 < row["macs"] < 1 for row in rows)
