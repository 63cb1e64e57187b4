from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from bench.charts import (
    SkippingPoint,
    autoscaling_chart,
    frontier_chart,
    goodput_chart,
    latency_chart,
    skipping_chart,
    throughput_chart,
)

_OURS = "this service"
_RESULTS = {
    "another": {1: 50.0, 4: None, 16: 90.0, 64: 100.0},
    _OURS: {1: 60.0, 4: 120.0, 16: 160.0, 64: 170.0},
    "a third": {1: 50.0, 4: 80.0, 16: 99.0, 64: None},
    "a fourth": {1: 51.0, 4: 81.0, 16: 100.0, 64: 101.0},
}
_POINTS = [SkippingPoint("a", 0.6, 0.7), SkippingPoint("a", 0.3, 0.5)]
_POINTS += [SkippingPoint(f"{_OURS} fp32", 1.0, 1.05), SkippingPoint(f"{_OURS} bf16", 1.0, 0.5)]


def _charts(folder: Path) -> list[Figure]:
    return [
        throughput_chart(_RESULTS, folder / "throughput.png", _OURS),
        latency_chart(_RESULTS, folder / "latency.png", _OURS, "conditions", limit_ms=75),
        goodput_chart({"another": {0.5: 0.5, 3: 0.0}, _OURS: {0.5: 0.5, 3: 1.0}}, folder / "goodput.png", _OURS),
        skipping_chart(_POINTS, folder / "skipping.png", _OURS),
        frontier_chart(
            {_OURS: {20.0: 0.9, 60.0: 0.92}, "another": {15.0: 0.88}}, folder / "frontier.png", _OURS, "MACs"
        ),
        autoscaling_chart({"another": {-1: 50, 0: 50}, _OURS: {-1: 40, 0: 90}}, folder / "autoscaling.png", _OURS),
    ]


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> list[Figure]:
    before = dict(matplotlib.rcParams)
    folder = tmp_path_factory.mktemp("charts") / "new"
    figures = _charts(folder)
    assert dict(matplotlib.rcParams) == before
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.size[0] >= 900
    assert len(list(folder.iterdir())) == 6
    return figures


def test_our_line_stands_out_and_every_line_is_named_at_its_end(charts: list[Figure]) -> None:
    for figure in charts:
        axes = figure.axes[0]
        lines = {str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")}
        assert {text.get_text() for text in axes.texts} >= {*lines}
        ours = [lines.pop(name) for name in [*lines] if name.startswith(_OURS)]
        assert ours
        assert min(line.get_linewidth() for line in ours) > max(line.get_linewidth() for line in lines.values())
        assert not {to_hex(line.get_color()) for line in ours} & {to_hex(line.get_color()) for line in lines.values()}
        assert axes.get_xlabel()
        assert axes.get_ylabel()


def test_names_of_lines_do_not_overlap(charts: list[Figure]) -> None:
    names = [text for text in charts[0].axes[0].texts if text.get_text() in _RESULTS]
    boxes = sorted((name.get_window_extent() for name in names), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_missing_measurement_leaves_a_gap(charts: list[Figure]) -> None:
    (line,) = [line for line in charts[0].axes[0].lines if line.get_label() == "another"]
    np.testing.assert_array_equal(np.isnan(np.asarray(line.get_ydata(), float)), [False, True, False, False])


def test_skipping_is_drawn_in_the_order_of_computation_against_the_diagonal(charts: list[Figure]) -> None:
    diagonal, _, line, *_ = charts[3].axes[0].lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_array_equal(line.get_xdata(), [0.3, 0.6])
    np.testing.assert_array_equal(line.get_ydata(), [0.5, 0.7])
