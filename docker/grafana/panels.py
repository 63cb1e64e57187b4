"""The kinds of panel that both dashboards are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
    trend,
)
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from docker.grafana import style

PROMETHEUS = dashboard.DataSourceRef(type_val="prometheus", uid="prometheus")

Panel = TypeVar(
    "Panel",
    barchart.Panel,
    bargauge.Panel,
    heatmap.Panel,
    stat.Panel,
    statetimeline.Panel,
    table.Panel,
    timeseries.Panel,
    trend.Panel,
)


@dataclass(frozen=True)
class Caption:
    """What a panel says of itself.

    Attributes:
        title: its heading.
        meaning: what it shows, and what to do when it looks bad.
        unit: Grafana's name of the unit of its values.
        high: the largest value there can be, if there is one.
        low: the smallest, if there is one.
    """

    title: str
    meaning: str
    unit: str
    high: float | None = None
    low: float | None = 0


@dataclass(frozen=True)
class Series:
    """A query, and how what it answers is drawn.

    Attributes:
        expr: PromQL.
        name: of the series; {{label}} stands for a label's value.
        colour: by default one for each name.
        is_dashed: a dashed line, for what is expected or allowed.
    """

    expr: str
    name: str
    colour: str | None = None
    is_dashed: bool = False


def captioned(panel: Panel, caption: Caption, width: int, height: int) -> Panel:
    """Give a panel its words, its range and its size on the grid of 24 columns."""
    panel.title(caption.title).description(caption.meaning).unit(caption.unit)
    panel.datasource(PROMETHEUS).span(width).height(height)
    if caption.low is not None:
        panel.min(caption.low)
    if caption.high is not None:
        panel.max(caption.high)
    return panel


def asking(panel: Panel, series: Sequence[Series], form: PromQueryFormat, *, is_instant: bool = False) -> Panel:
    """Give a panel its queries, named A, B, and so on."""
    for letter, one in zip(ascii_uppercase, series, strict=False):
        query = prometheus.Dataquery().ref_id(letter).datasource(PROMETHEUS).format(form)
        query.expr(one.expr).legend_format(one.name)
        panel.with_target(query.instant() if is_instant else query.range())
    return panel


def figure(caption: Caption, expr: str, *, name: str = "", width: int = 3, is_instant: bool = False) -> stat.Panel:
    """One number in the colour of the threshold it has reached, over a small curve of how it came to be.

    An instant one has no curve: it is already about all of the time shown.
    """
    panel = captioned(stat.Panel(), caption, width, 4)
    last = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel.reduce_options(last).color_mode(models.BigValueColorMode.VALUE)
    panel.graph_mode(models.BigValueGraphMode.NONE if is_instant else models.BigValueGraphMode.AREA)
    panel.mappings([style.idle_text()]).color_scheme(style.by_threshold()).thresholds(style.thresholds())
    return asking(panel, [Series(expr, name)], PromQueryFormat.TIME_SERIES, is_instant=is_instant)


def curves(caption: Caption, series: Sequence[Series], *, width: int = 12, height: int = 8) -> timeseries.Panel:
    """Lines over time."""
    panel = captioned(timeseries.Panel(), caption, width, height)
    panel.line_width(2).fill_opacity(8).show_points(models.VisibilityMode.NEVER).color_scheme(style.by_name())
    panel.tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.DESCENDING))
    panel.legend(legend_below())
    for one in series:
        panel.override_by_name(one.name, _look(one))
    return asking(panel, series, PromQueryFormat.TIME_SERIES)


def stacked(panel: timeseries.Panel, *, as_bars: bool = False) -> timeseries.Panel:
    """Curves on top of each other, whose sum is what counts."""
    panel.stacking(common.StackingConfig().mode(models.StackingMode.NORMAL).group("A")).fill_opacity(45).line_width(1)
    if as_bars:
        panel.draw_style(models.GraphDrawStyle.BARS).fill_opacity(80)
    return panel


def heat_map(
    caption: Caption, series: Series, form: PromQueryFormat, *, width: int = 12, height: int = 8
) -> heatmap.Panel:
    """Time to the right, buckets or names upwards, the count or the share in a cell's colour."""
    panel = captioned(heatmap.Panel(), caption, width, height)
    panel.calculate(False).cell_gap(1).show_value(models.VisibilityMode.NEVER).show_color_scale(True).show_legend()
    panel.mode(models.TooltipDisplayMode.SINGLE).cell_values(heatmap.CellValues().unit(caption.unit))
    return asking(panel, [series], form)


def in_shades(panel: heatmap.Panel, colour: str, *, most: float | None = None) -> heatmap.Panel:
    """Cells in a colour that is the stronger the larger the value, full at `most` or at the largest there is.

    Counts without a bound differ by orders of magnitude, so few of them are made stronger than in proportion.
    """
    shades = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.OPACITY).fill(colour).min(0)
    if most is None:
        return panel.color(shades.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5))
    return panel.color(shades.scale(HeatmapColorScale.LINEAR).max(most))


def legend_below() -> common.VizLegendOptions:
    """The names of the series, in a line under them."""
    legend = common.VizLegendOptions().show_legend(True).display_mode(models.LegendDisplayMode.LIST)
    return legend.placement(models.LegendPlacement.BOTTOM).calcs([])


def in_colour(colour: str) -> dashboard.DynamicConfigValue:
    """The override that gives a series a colour."""
    return dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


def _look(series: Series) -> list[dashboard.DynamicConfigValue]:
    look = []
    if series.colour is not None:
        look.append(in_colour(series.colour))
    if series.is_dashed:
        dashes = {"fill": "dash", "dash": [8, 8]}
        look.append(dashboard.DynamicConfigValue(id_val="custom.lineStyle", value=dashes))
        look.append(dashboard.DynamicConfigValue(id_val="custom.fillOpacity", value=0))
    return look
