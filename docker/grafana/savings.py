"""The panels of what skipping saves: arithmetic, time, and for which classes."""

from __future__ import annotations

from grafana_foundation_sdk.builders import bargauge, common, timeseries, trend
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from docker.grafana import style, tables
from docker.grafana.panels import Caption, Series, asking, captioned, curves, in_colour, legend_below, stacked

SPENT, SAVED = "sum(rate(aig_macs_sum[$__rate_interval]))", "sum(rate(aig_macs_saved_total[$__rate_interval]))"
BLOCKS = "count(sum by (block) (aig_block_executed_total))"
_MOST_CLASSES = 20


def macs() -> timeseries.Panel:
    """Multiply-accumulates spent and saved over time."""
    caption = Caption(
        "Multiply-accumulates",
        "Spent and saved, each second. Together they are what the same network without gates would spend.",
        "si:MAC/s",
    )
    spent, saved = Series(SPENT, "spent", style.EXECUTED), Series(SAVED, "saved", style.SKIPPED)
    return stacked(curves(caption, [spent, saved]))


def share_saved() -> timeseries.Panel:
    """The share saved over time, beside that at export."""
    caption = Caption(
        "Share of the MACs saved",
        "Of the multiply-accumulates that the same network without gates would have spent, and the same share at "
        "export (dashed). Well below the dashed line: the service computes more for an image than planned, so its "
        "capacity is smaller too; the images are harder than those at export, or other ones.",
        "percentunit",
        high=1,
    )
    share = Series(f"{SAVED} / ({SAVED} + {SPENT})", "saved", style.SKIPPED)
    expected = Series("1 - avg(job_model:aig_macs_expected:ratio_rate5m)", "at export", style.EXPECTED, is_dashed=True)
    return curves(caption, [share, expected])


def inference_time() -> trend.Panel:
    """Whether fewer blocks take less time."""
    caption = Caption(
        "Inference time by blocks executed",
        "Mean inference time of the images for which so many blocks ran, over the time shown, and what share of the "
        "images that was (bars). The line should rise from left to right: then skipping saves time, not only "
        "arithmetic. Flat: the runtime does not gain from skipping, or images run in batches, which take as long as "
        "their largest image; /model tells which runtime was chosen.",
        "s",
    )
    spent, ran = (
        f"sum by (blocks) (increase(aig_executed_blocks_inference_seconds_{part}[$__range]))"
        for part in ("sum", "count")
    )
    time = Series(f"{spent} / ({ran} > 0)", "mean inference time", style.INFERENCE)
    share = Series(f"({ran} > 0) / scalar(sum({ran}))", "share of the images", style.EXPECTED)
    panel = captioned(trend.Panel(), caption, 12, 10).legend(legend_below())
    panel.x_field("blocks executed").line_width(2).show_points(models.VisibilityMode.ALWAYS).point_size(7)
    panel.transformations(
        [
            tables.merged(),
            tables.as_number("blocks"),
            tables.sorted_by("blocks"),
            tables.with_columns(
                {"blocks": "blocks executed", "Value #A": time.name, "Value #B": share.name}, hidden=["Time"]
            ),
        ]
    )
    panel.override_by_name("blocks executed", [DynamicConfigValue(id_val="unit", value="short")])
    panel.override_by_name(time.name, [in_colour(style.INFERENCE)])
    as_bars = {
        "unit": "percentunit",
        "max": 1,
        "custom.drawStyle": "bars",
        "custom.fillOpacity": 30,
        "custom.lineWidth": 0,
        "custom.axisPlacement": "right",
    }
    bars = [DynamicConfigValue(id_val=property_, value=value) for property_, value in as_bars.items()]
    panel.override_by_name(share.name, [in_colour(style.EXPECTED), *bars])
    return asking(panel, [time, share], PromQueryFormat.TABLE, is_instant=True)


def class_rates() -> bargauge.Panel:
    """Which classes need the most blocks."""
    caption = Caption(
        "Execution rate by predicted class",
        f"Mean share of the blocks executed for the images of a class, as predicted, over the time shown, at most "
        f"{_MOST_CLASSES} classes, the most demanding first. Some difference is normal: some classes are harder. All "
        "classes alike: the gates do not depend on the image. Known images, other rates: look at what is sent.",
        "percentunit",
        high=1,
    )
    executed = "sum by (label) (increase(aig_class_blocks_executed_total[$__range]))"
    images = "sum by (label) (increase(aig_class_images_total[$__range]))"
    rates = Series(f"topk({_MOST_CLASSES}, {executed} / ({images} > 0) / scalar({BLOCKS}))", "{{label}}")
    panel = captioned(bargauge.Panel(), caption, 12, 10)
    panel.reduce_options(common.ReduceDataOptions().values(True).limit(_MOST_CLASSES).calcs(["lastNotNull"]))
    panel.orientation(models.VizOrientation.HORIZONTAL).display_mode(models.BarGaugeDisplayMode.BASIC)
    panel.color_scheme(style.fixed(style.EXECUTED)).thresholds(style.thresholds()).decimals(1)
    panel.name_placement(models.BarGaugeNamePlacement.LEFT).show_unfilled(True).sizing(models.BarGaugeSizing.AUTO)
    panel.transformations(
        [
            tables.sorted_by("Value", largest_first=True),
            tables.with_columns({"label": "label", "Value": "execution rate"}, hidden=["Time"]),
        ]
    )
    return asking(panel, [rates], PromQueryFormat.TABLE, is_instant=True)
