"""Charts of what the benchmarks measured, from plain numbers.

The one series that the reader came for is drawn in a strong colour, the others in muted ones, each named at its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullLocator, PercentFormatter

Series = Mapping[str, Mapping[float, float | None]]

_DPI = 150
_SIZE = (8, 4.8)

# The strong colour is from the palette of Okabe and Ito, as in models/pictures.py. The muted ones resemble each other
# more, so every series has a marker and its name too: nothing is told by colour alone.
_STRONG, _GREY = "#d55e00", "#595959"
_MUTED = ("#5b8db8", "#5f9f85", "#b38b2e", "#a87697", "#858585", "#459db5", "#8b8850", "#8a7bbb")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")


@dataclass(frozen=True)
class SkippingPoint:
    """One network on one runtime; both numbers are relative to the same network without gates, in ONNX Runtime."""

    runtime: str
    mac_ratio: float
    time_ratio: float


def throughput_chart(results: Series, path: Path, ours: str, conditions: str = "") -> Figure:
    """Images per second against clients that each wait for their answer, a line for each server.

    Args:
        results: by server and number of clients; None where it could not be measured.
        path: of the PNG.
        ours: the server to emphasise, or what the names of several begin with.
        conditions: what all were measured under, for the line below the title.
    """
    figure, axes = _blank("Throughput in images/s, by number of clients", conditions)
    axes.set_xscale("log")
    _draw_series(axes, results, ours)
    axes.set_ylim(bottom=0)
    numbers = sorted({number for values in results.values() for number in values})
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("clients, each with one request at a time (log)")
    axes.set_ylabel("throughput (images/s)")
    _name_ends(axes, ours)
    return _save(figure, path)


def latency_chart(
    results: Series, path: Path, ours: str, conditions: str = "", limit_ms: float | None = None
) -> Figure:
    """99th percentile of latency in milliseconds against offered load, as a multiple of a capacity.

    Args:
        results: by server and load, of the images that were answered and not refused; None where none was.
        limit_ms: the latency that was called for, drawn as a line.

    The other arguments are those of `throughput_chart`.
    """
    figure, axes = _blank("99th percentile of latency in ms of the images answered, by offered load", conditions)
    axes.set_yscale("log")
    if limit_ms is not None:
        axes.axhline(limit_ms, color=_GREY, linestyle=":", linewidth=1)
        axes.annotate(
            f"limit {limit_ms:g} ms", (0, limit_ms), (4, 4), axes.get_yaxis_transform(), "offset points", color=_GREY
        )
    _draw_series(axes, results, ours)
    _load_axis(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylabel("p99 latency (ms, log)")
    _name_ends(axes, ours)
    return _save(figure, path)


def goodput_chart(results: Series, path: Path, ours: str, conditions: str = "") -> Figure:
    """Goodput as a share of its peak against offered load, as a multiple of a capacity.

    Args:
        results: by server and load, the images classified in time per second over the most that it reached.

    The other arguments are those of `throughput_chart`.
    """
    figure, axes = _blank("Goodput in % of its peak, by offered load", conditions)
    _draw_series(axes, results, ours)
    _load_axis(axes)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("goodput (% of the server's peak)")
    _name_ends(axes, ours)
    return _save(figure, path)


def skipping_chart(points: Sequence[SkippingPoint], path: Path, ours: str, conditions: str = "") -> Figure:
    """How much of the skipped computation is saved as time: time against MACs, and the diagonal where all of it is."""
    figure, axes = _blank("Time by share of the MACs that are computed", conditions)
    low = min([point.mac_ratio for point in points] + [point.time_ratio for point in points])
    start = max(0.0, math.floor(low * 10 - 0.5) / 10)
    axes.plot([start, 1], [start, 1], color=_GREY, linestyle=":", linewidth=1.5)
    # At its lower end, where no series is.
    axes.annotate("all that is skipped saves time", (start, start), (10, -8), "data", "offset points", color=_GREY)
    axes.axhline(1, color=_GREY, linewidth=0.8)
    series: dict[str, dict[float, float | None]] = {}
    for point in sorted(points, key=lambda point: point.mac_ratio):
        series.setdefault(point.runtime, {})[point.mac_ratio] = point.time_ratio
    _draw_series(axes, series, ours)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("MACs (% of the network without gates)")
    axes.set_ylabel("time (% of the network without gates)")
    _name_ends(axes, ours)
    return _save(figure, path)


def frontier_chart(results: Series, path: Path, ours: str, cost: str, conditions: str = "") -> Figure:
    """Accuracy against what an image costs, a line for each network that can be run at several costs.

    Args:
        results: by network and cost, the share of images classified correctly.
        cost: what the costs are.

    The other arguments are those of `throughput_chart`.
    """
    figure, axes = _blank("Accuracy by cost", conditions)
    axes.set_xscale("log")
    _draw_series(axes, results, ours)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"{cost} (log)")
    axes.set_ylabel("accuracy")
    _name_ends(axes, ours)
    return _save(figure, path)


def autoscaling_chart(results: Series, path: Path, ours: str, conditions: str = "") -> Figure:
    """Images per second against minutes since a burst began: what is asked, and what each autoscaler's replicas can do.

    The arguments are those of `throughput_chart`.
    """
    figure, axes = _blank("Capacity after a burst in images/s, by autoscaler", conditions)
    _draw_series(axes, results, ours)
    for line in axes.lines:
        line.set(markevery=4, drawstyle="steps-post")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MultipleLocator(2))
    axes.set_xlabel("minutes since the burst began")
    axes.set_ylabel("images/s (log)")
    _name_ends(axes, ours)
    return _save(figure, path)


def _blank(title: str, conditions: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", weight="bold", pad=24)
    axes.annotate(conditions, (0, 1), (0, 9), "axes fraction", "offset points", color=_GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _draw_series(axes: Axes, results: Series, ours: str) -> None:
    """A line for each, `ours` above the others; gaps where there is no number."""
    others = 0
    for name, values in results.items():
        x = sorted(values)
        y = [math.nan if (value := values[at]) is None else value for at in x]
        if name.startswith(ours):
            axes.plot(x, y, color=_STRONG, marker="o", markersize=7, linewidth=3, zorder=3, label=name)
        else:
            colour, marker = _MUTED[others % len(_MUTED)], _MARKERS[others % len(_MARKERS)]
            axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.5, label=name)
            others += 1


def _name_ends(axes: Axes, ours: str) -> None:
    """Write each line's name right of the axes, in its colour, at the height of its end or as near as there is room.

    Only called once all is drawn: the heights are those of the limits that the axes have now.
    """
    axes.get_xlim(), axes.get_ylim()  # makes matplotlib work them out, which it puts off
    ends = []
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        drawn = ~np.isnan(y)
        if not str(line.get_label()).startswith("_") and drawn.any():
            height = axes.transAxes.inverted().transform(axes.transData.transform((x[drawn][-1], y[drawn][-1])))[1]
            ends.append((float(height), line))
    ends.sort(key=lambda end: end[0])
    for place, (_, line) in zip(_apart([height for height, _ in ends]), ends, strict=True):
        name = str(line.get_label())
        axes.annotate(
            name,
            (1, place),
            (6, 0),
            axes.transAxes,
            "offset points",
            va="center",
            color=line.get_color(),
            weight="bold" if name.startswith(ours) else "normal",
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], gap: float = 0.06) -> list[float]:
    """The ascending heights, shares of the axes' own, moved as little as makes them at least `gap` apart within it."""
    groups: list[tuple[float, int]] = []  # the mean of what each would be without those below it, and how many
    for number, height in enumerate(heights):
        mean, count = height - number * gap, 1
        while groups and groups[-1][0] >= mean:  # least squares under an order: neighbours that violate it are pooled
            below, many = groups.pop()
            mean, count = (mean * count + below * many) / (count + many), count + many
        groups.append((mean, count))
    moved = [mean for mean, count in groups for _ in range(count)]
    highest = 1 - gap * (len(moved) - 1)
    return [min(max(height, 0.0), highest) + number * gap for number, height in enumerate(moved)]


def _load_axis(axes: Axes) -> None:
    """Loads below, the capacity marked."""
    axes.axvline(1, color=_GREY, linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MultipleLocator(0.5))
    axes.set_xlabel("offered load (multiple of the capacity)")


def _save(figure: Figure, path: Path) -> Figure:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    return figure
