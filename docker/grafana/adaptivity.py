"""The dashboard of what the gates decide, block by block and class by class, and of what that saves."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders.heatmap import YAxisConfig
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from docker.grafana import style, tables
from docker.grafana.blocks import execution_rates, execution_rates_over_time
from docker.grafana.page import ADAPTIVITY_UID, OPERATION_UID, add_choice_of_model, add_row, page
from docker.grafana.panels import (
    Caption,
    Series,
    asking,
    captioned,
    curves,
    figure,
    heat_map,
    in_shades,
)
from docker.grafana.savings import BLOCKS, SAVED, SPENT, class_rates, inference_time, macs, share_saved

_SKIPPED = "sum(rate(aig_skip_ratio_sum[{0}])) / sum(rate(aig_skip_ratio_count[{0}]))".format("$__rate_interval")
_EXPECTED_RATES = "avg by (block) (aig_block_expected_execution_rate)"


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = page(
        ADAPTIVITY_UID,
        "ConvNet-AIG: adaptivity",
        "Which blocks the gates execute and skip, for which images, and what that saves.",
        (OPERATION_UID, "ConvNet-AIG: operation", "Whether the service is up and how fast it answers"),
    )
    add_choice_of_model(board)
    add_row(board, None, [_model(), *_skipping_now(), *_saving_now(), _drift()])
    add_row(board, "Blocks skipped", [_skip_ratio(), _skip_ratios()])
    add_row(board, "Blocks", [execution_rates(), execution_rates_over_time()])
    add_row(board, "What it saves", [macs(), share_saved(), inference_time(), class_rates()])
    add_row(board, "Model", [_model_facts()])
    return board


def _model() -> stat.Panel:
    caption = Caption("Model", "The model that is served. Two of them: a change of versions is under way.", "short")
    panel = figure(caption, "aig_model_info", name="{{model}}, version {{version}}", width=6, is_instant=True)
    panel.text_mode(models.BigValueTextMode.NAME)
    return panel.color_scheme(style.fixed(style.NEUTRAL))


def _skipping_now() -> list[stat.Panel]:
    skipped = Caption(
        "Blocks skipped",
        "Mean share of the network's blocks skipped for an image. 0 where images arrive: no gate closes; compare with "
        "the share at export below.",
        "percentunit",
        high=1,
    )
    executed = Caption(
        "Blocks executed", "Mean number of blocks executed for an image; Model, below, says of how many.", "short"
    )
    return [
        figure(skipped, _SKIPPED).decimals(1).color_scheme(style.fixed(style.SKIPPED)),
        figure(executed, f"(1 - {_SKIPPED}) * {BLOCKS}").decimals(1).color_scheme(style.fixed(style.EXECUTED)),
    ]


def _saving_now() -> list[stat.Panel]:
    share = Caption(
        "MACs saved",
        "Share of the multiply-accumulates of the same network without gates that was not spent. Near 0 or far from "
        "its usual value: see Share of the MACs saved.",
        "percentunit",
        high=1,
    )
    rate = Caption("Saved a second", "Multiply-accumulates not spent each second, against no gates.", "si:MAC/s")
    total = Caption(
        "Saved in all",
        "Multiply-accumulates not spent in the time shown, against the same network without gates.",
        "si:MAC",
    )
    panels = [
        figure(share, f"{SAVED} / ({SAVED} + {SPENT})").decimals(1),
        figure(rate, SAVED),
        figure(total, "sum(increase(aig_macs_saved_total[$__range]))", is_instant=True),
    ]
    return [panel.color_scheme(style.fixed(style.SKIPPED)) for panel in panels]


def _drift() -> stat.Panel:
    caption = Caption(
        "Largest drift",
        "The largest difference between a block's execution rate of the last 15 minutes and that at export. "
        "Above 20 points the images are probably not those the model was made for: see which blocks under Execution "
        "rate by block, look at some images, and measure accuracy on them. 0 as well where the model has no profile.",
        "percentunit",
        high=1,
    )
    actual = "job_model_block_stage:aig_block_execution_rate:ratio_rate15m"
    expected = "job_model_block_stage:aig_block_expected_execution_rate:ratio_rate15m"
    panel = figure(caption, f"max(abs({actual} - {expected})) or vector(0)").decimals(1)
    return panel.thresholds(style.thresholds(warning=0.1, bad=0.2))


def _skip_ratio() -> timeseries.Panel:
    caption = Caption(
        "Share of the blocks skipped",
        "Mean over the images of each moment, and the shares that a tenth of the images do not reach and that a tenth "
        "exceed. Dashed: the mean at export. Lines that lie together: the gates treat all images alike. A mean that "
        "leaves the dashed line for long: the images changed; see Execution rate by block.",
        "percentunit",
        high=1,
    )
    buckets = "sum by (le) (rate(aig_skip_ratio_bucket[$__rate_interval]))"
    expected = f"(count({_EXPECTED_RATES}) - sum({_EXPECTED_RATES})) / {BLOCKS}"
    series = [
        Series(_SKIPPED, "mean", style.SKIPPED),
        Series(f"histogram_quantile(0.1, {buckets})", "p10", style.EXPECTED),
        Series(f"histogram_quantile(0.9, {buckets})", "p90", style.EXPECTED),
        Series(expected, "mean at export", style.EXPECTED, is_dashed=True),
    ]
    panel = curves(caption, series)
    # A band between two thin lines.
    bounds: dict[str, dict[str, object]] = {
        "p10": {"fillOpacity": 0, "lineWidth": 1},
        "p90": {"fillOpacity": 20, "lineWidth": 1, "fillBelowTo": "p10"},
    }
    for name, look in bounds.items():
        values = [DynamicConfigValue(id_val=f"custom.{key}", value=value) for key, value in look.items()]
        panel.override_by_name(name, values)
    return panel


def _skip_ratios() -> heatmap.Panel:
    caption = Caption(
        "Distribution of the share skipped",
        "How many images had which share of their blocks skipped. A wide band is what gates are for: easy images skip "
        "more than hard ones. A single thin line: every image takes much the same path.",
        "short",
    )
    images = Series("sum by (le) (increase(aig_skip_ratio_bucket[$__rate_interval]))", "{{le}}")
    panel = heat_map(caption, images, PromQueryFormat.HEATMAP)
    panel.y_axis(YAxisConfig().unit("percentunit").axis_placement(models.AxisPlacement.LEFT))
    return in_shades(panel, style.SKIPPED)


def _model_facts() -> table.Panel:
    caption = Caption(
        "The model served",
        "Its name, version and size: blocks, and multiply-accumulates for an image with every block executed and "
        "without gates at all. /model of the service tells the rest. More rows than instances: a change of versions.",
        "short",
    )
    columns = {
        "instance": "instance",
        "model": "model",
        "version": "version",
        "blocks": "blocks",
        "total_macs": "MACs, all executed",
        "ungated_macs": "MACs, no gates",
    }
    macs = [DynamicConfigValue(id_val="unit", value="si:MAC")]
    panel = captioned(table.Panel(), caption, 24, 4)
    panel.transformations(
        [
            tables.as_number("total_macs"),
            tables.as_number("ungated_macs"),
            tables.with_columns(columns, hidden=["Time", "Value", "__name__", "job"]),
        ]
    )
    for column in ("total_macs", "ungated_macs"):
        panel.override_by_name(columns[column], macs)
    return asking(panel, [Series("aig_model_info", "")], PromQueryFormat.TABLE, is_instant=True)
