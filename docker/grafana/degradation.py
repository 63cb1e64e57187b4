"""The panels of answers with less compute than was asked for: how many, and whether their classes differ."""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries

from docker.grafana import style
from docker.grafana.panels import Caption, Series, curves, stacked


def budget_limit() -> timeseries.Panel:
    """The lowest limit, and how many images it concerns."""
    caption = Caption(
        "Budget limit and degraded images",
        "Dashed: the largest share of the multiply-accumulates that images had in the last second, on the instance "
        "with the lowest limit; 100% is no limit. Yellow: the share of the images of the last 5 minutes that were "
        "answered with less compute than was asked for. A limit that stays low: more is asked than can be done in "
        "full; send less or run more instances. A low limit without degraded images: clients ask for no more, or "
        "allow no less.",
        "percentunit",
        high=1,
    )
    limit = Series("min(job_model:aig_budget_limit:min)", "limit", style.EXECUTED, is_dashed=True)
    degraded = Series("max(job_model:aig_degraded_images:ratio_rate5m)", "degraded", style.WARNING)
    return curves(caption, [limit, degraded])


def rechecked() -> timeseries.Panel:
    """What the whole network says of degraded answers."""
    caption = Caption(
        "Degraded answers compared",
        "Some degraded images are run again through the whole network when there is time. Another class in more than "
        "one of ten: small budgets cost more accuracy on these images than they should; set a larger --least-budget or "
        "--least-accuracy. No bars: nothing was degraded, or there was no time yet.",
        "short",
    )
    kinds = [("same class", "true", style.GOOD), ("another class", "false", style.WARNING)]
    series = [
        Series(f'sum(increase(aig_rechecked_images_total{{same="{same}"}}[$__rate_interval]))', name, colour)
        for name, same, colour in kinds
    ]
    return stacked(curves(caption, series), as_bars=True)
