"""The panels of how long a request takes, and where that time goes."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, timeseries
from grafana_foundation_sdk.models import common as models

from docker.grafana import style
from docker.grafana.panels import Caption, Series, curves, stacked
from docker.grafana.promql import CLASSIFY, quantile, rate


def _quantiles(histogram: str) -> list[Series]:
    return [
        Series(quantile(share, histogram), f"p{share * 100:.0f}", colour) for share, colour in style.QUANTILES.items()
    ]


def latency() -> timeseries.Panel:
    """How long requests take."""
    caption = Caption(
        "Latency of a request",
        "From a request's head to its answer: upload, decoding, waiting, inference. Refusals are included and fast, so "
        "under overload read it together with Requests by outcome. Above the dashed red line for p99 an alert fires. "
        "Dashed and grey: the objective, the shortest of all instances, within which decoding, waiting and inference "
        "should be done; it counts no upload, and is absent until it is measured.",
        "s",
    )
    objective = Series("min(aig_objective_seconds)", "objective", style.EXPECTED, is_dashed=True)
    panel = curves(caption, [*_quantiles(f"aig_request_seconds{{{CLASSIFY}}}"), objective])
    dashed = common.GraphThresholdsStyleConfig().mode(models.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(style.thresholds(bad=0.5)).thresholds_style(dashed)


def mean_parts() -> timeseries.Panel:
    """The mean time of each step, on top of each other."""
    caption = Caption(
        "Where the time goes",
        "Mean time an image spends in each step. Queue grows: the workers are busy, more is asked than they can do. "
        "Inference grows: fewer blocks are skipped (see adaptivity), larger batches, or another program on these "
        "cores. Decoding grows: larger images.",
        "s",
    )
    steps = [("decode", style.DECODE), ("queue", style.QUEUE), ("inference", style.INFERENCE)]
    series = [
        Series(f"{rate(f'aig_{step}_seconds_sum')} / {rate(f'aig_{step}_seconds_count')}", step, colour)
        for step, colour in steps
    ]
    return stacked(curves(caption, series))


def parts() -> list[timeseries.Panel]:
    """The quantiles of each step's time."""
    meanings = {
        "decode": "Decoding and preprocessing of an image. Slow: very large images; --max-pixels bounds them.",
        "queue": "Wait of an image for a worker. Slow: more is asked than can be done, see Queue.",
        "inference": "Run of the batch an image was in. Slow: see Inference time by blocks executed under adaptivity, "
        "and whether another program uses these cores.",
    }
    return [
        curves(Caption(f"Time of an image: {step}", meaning, "s"), _quantiles(f"aig_{step}_seconds"), width=8, height=7)
        for step, meaning in meanings.items()
    ]
