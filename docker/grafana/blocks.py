"""The panels with a place for every block, in the network's order."""

from __future__ import annotations

from grafana_foundation_sdk.builders import barchart, common, heatmap
from grafana_foundation_sdk.builders.heatmap import YAxisConfig
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from docker.grafana import style, tables
from docker.grafana.panels import Caption, Series, asking, captioned, heat_map, in_colour, in_shades, legend_below

# A label of our own to sort by. Prometheus sorts what a range query answers by all labels, compared in the order of
# their names; the underscore comes before every letter, so this label is compared before `block` is.
_PLACE = "_place"


def in_network_order(expr: str) -> str:
    """Give each block of `expr` its place, 2.03 for stage2_block3, which sorts before 2.10 as text too.

    As text, stage2_block10 would come before stage2_block3. Right for up to 99 blocks a stage; ResNet-152 has 36.
    """
    one_digit = f'label_replace({expr}, "{_PLACE}", "$1.0$2", "block", "stage([0-9]+)_block([0-9])")'
    return f'label_replace({one_digit}, "{_PLACE}", "$1.$2", "block", "stage([0-9]+)_block([0-9]{{2}})")'


def _executed(window: str) -> str:
    return f"sum by (block) (rate(aig_block_executed_total[{window}]))"


def _gated_rate(window: str) -> str:
    return f"{_executed(window)} / sum by (block) (rate(aig_block_gated_total[{window}]))"


def _ungated_rate(window: str) -> str:
    """Measured as well, so that it would show if such a block were not run."""
    ungated = f"({_executed(window)} unless sum by (block) (aig_block_gated_total))"
    return f'{ungated} / scalar(sum(rate(aig_images_total{{outcome="ok"}}[{window}])))'


def execution_rates() -> barchart.Panel:
    """Every block's execution rate in the time shown, beside the one it had at export."""
    caption = Caption(
        "Execution rate by block",
        "Share of the images for which a block ran, over the time shown, in the network's order, beside the same share "
        "at export (grey; absent if the model has no profile). Blocks without a gate always run, in dark blue. Bars "
        "far from the grey ones: the images differ from those the model was made with. Look at some; if they are what "
        "is to be classified, measure accuracy on them and train again.",
        "percentunit",
        high=1,
    )
    series = [
        Series(in_network_order(_gated_rate("$__range")), "executed", style.EXECUTED),
        Series(in_network_order("avg by (block) (aig_block_expected_execution_rate)"), "at export", style.EXPECTED),
        Series(in_network_order(_ungated_rate("$__range")), "no gate, always executed", style.ALWAYS_EXECUTED),
    ]
    columns = {f"Value #{letter}": one.name for letter, one in zip("ABC", series, strict=True)}
    panel = captioned(barchart.Panel(), caption, 24, 9)
    panel.x_field("block").orientation(models.VizOrientation.VERTICAL).show_value(models.VisibilityMode.NEVER)
    panel.x_tick_label_rotation(-45).x_tick_label_max_length(30).group_width(0.8).bar_width(0.95).fill_opacity(
        90
    ).line_width(0)
    panel.legend(legend_below())
    panel.tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.NONE))
    panel.transformations(
        [
            tables.merged(),
            tables.sorted_by(_PLACE),
            tables.with_columns({"block": "block", **columns}, hidden=["Time", _PLACE]),
        ]
    )
    for one in series:
        if one.colour is not None:
            panel.override_by_name(one.name, [in_colour(one.colour)])
    return asking(panel, series, PromQueryFormat.TABLE, is_instant=True)


def execution_rates_over_time() -> heatmap.Panel:
    """Every gated block's execution rate over time."""
    caption = Caption(
        "Execution rate by block over time",
        "The same for the blocks with a gate, from the first block at the top to the last: the stronger the colour, "
        "the larger the share of the images for which the block ran. A row that changes at one moment: the images "
        "changed, or the model did.",
        "percentunit",
        high=1,
    )
    rates = Series(in_network_order(_gated_rate("$__rate_interval")), "{{block}}")
    panel = heat_map(caption, rates, PromQueryFormat.TIME_SERIES, width=24, height=11)
    panel.y_axis(YAxisConfig().reverse(True).axis_placement(models.AxisPlacement.LEFT))
    return in_shades(panel, style.EXECUTED, most=1)
