"""The page's arithmetic: from the records, and the same as the program's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.manifest import read_manifest
from bench.capacity import (
    MEASURED,
    Example,
    amount_table,
    core_ms,
    core_table,
    cores,
    gpu_table,
    limit_table,
    measured,
    series,
)
from bench.report import markdown
from service.observability.model_metrics import ModelMetrics

_ROOT = Path(__file__).resolve().parents[2]
_SHIPPED = _ROOT / "model_repository" / "convnet-aig-38-cifar10" / "1"


@pytest.mark.parametrize("name", MEASURED)
def test_figure_stands_in_the_records(name: str) -> None:
    assert MEASURED[name][1] in (_ROOT / "bench" / "RECORDS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [core_table, gpu_table, limit_table, amount_table])
def test_page_has_the_table(table: Callable[[Example], list[list[str]]]) -> None:
    assert markdown(*table(Example())) in (_ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_what_was_measured_comes_out_again() -> None:
    assert 2_000 / core_ms() == pytest.approx(measured("50 layers, HTTP"))


def test_skipped_compute_is_saved_time_but_http_is_not() -> None:
    assert core_ms(0.0) == pytest.approx(core_ms() - measured("50 layers, one image, ms"))
    assert core_ms(0.0) > 0


def test_cores_are_rounded_up() -> None:
    assert cores(1_000, 1.0, Example(busy=1.0)) == 1
    assert cores(1_001, 1.0, Example(busy=1.0)) == 2
    assert cores(1_000, 1.0, Example(busy=0.5)) == 2


def test_series_of_blocks_gates_and_classes_are_those_of_the_service() -> None:
    manifest = read_manifest(_SHIPPED)
    blocks, gates, classes = len(manifest.blocks), sum(block.gated for block in manifest.blocks), len(manifest.labels)
    counted = sum(
        sample.name.startswith(("aig_block_", "aig_class_", "aig_executed_blocks_"))
        and not sample.name.endswith("_created")
        for family in ModelMetrics(manifest).registry.collect()
        for sample in family.samples
    )
    # With nothing that varies, what is left is what every model has.
    assert counted == series(blocks, gates, classes) - series(0, 0, 0) + 2
    # The network of 38 layers that shipped when that was measured had no gate before the first block of a stage.
    assert series(blocks, gates - 3, classes) == measured("38 layers, series")


def test_prices_are_in_proportion() -> None:
    once, twice = (core_table(Example(core_hour=price))[2][6] for price in (1.0, 2.0))
    assert math.isclose(float(twice), 2 * float(once), rel_tol=1e-4)
