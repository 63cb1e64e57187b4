"""What the report's charts have in common: small enough to be read on a phone, no frame, a faint grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from models.intervals import Estimate
from models.palette import GREY, PALE_GREY, remove_frame

_WIDTH_INCHES = 5.0
_FONT_POINTS = 9
# Names and intervals of that many rows fit one below the other.
_ROW_INCHES, _FRAME_INCHES = 0.24, 0.9


def blank(height_inches: float = 3.2) -> tuple[Figure, Axes]:
    """An empty chart with a grid for values on the vertical axis."""
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.subplots()
    remove_frame(axes)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=PALE_GREY, linewidth=0.5)
    axes.tick_params(length=0, labelsize=_FONT_POINTS)
    return figure, axes


def blank_rows(names: Sequence[str]) -> tuple[Figure, Axes]:
    """An empty chart with a row for each name, the first at the top, and a grid for values along them."""
    figure, axes = blank(_FRAME_INCHES + _ROW_INCHES * len(names))
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=PALE_GREY, linewidth=0.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return figure, axes


def name_axes(axes: Axes, horizontal: str, vertical: str = "") -> None:
    """Say what the axes show."""
    axes.set_xlabel(horizontal, fontsize=_FONT_POINTS)
    axes.set_ylabel(vertical, fontsize=_FONT_POINTS)


def as_percent(axes: Axes, *which: str) -> None:
    """Read the values of these axes, "x" or "y", as shares."""
    for name in which:
        getattr(axes, f"{name}axis").set_major_formatter(PercentFormatter(1))


def add_legend(axes: Axes, columns: int = 1) -> None:
    """Below the chart, where it hides nothing."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=_FONT_POINTS)


def note(axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float] = (6, 4)) -> None:
    """A word beside a mark, shifted by points."""
    align = "left" if shift[0] >= 0 else "right"
    axes.annotate(text, at, shift, textcoords="offset points", fontsize=_FONT_POINTS - 1, color=GREY, ha=align)


def reaches(estimates: Sequence[Estimate]) -> np.ndarray:
    """How far each interval reaches below and above its value, (2, N), as error bars want it; 0 where there is none."""
    values = np.array([estimate.value for estimate in estimates])
    bounds = np.array([[estimate.low for estimate in estimates], [estimate.high for estimate in estimates]])
    return np.nan_to_num(np.abs(bounds - values))
