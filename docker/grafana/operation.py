"""The dashboard of the running service: is it up, what is asked of it, how fast does it answer, what does it use."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from docker.grafana import style
from docker.grafana.degradation import budget_limit, rechecked
from docker.grafana.devices import devices
from docker.grafana.latency import latency, mean_parts, parts
from docker.grafana.page import ADAPTIVITY_UID, OPERATION_UID, add_row, page
from docker.grafana.panels import (
    Caption,
    Series,
    asking,
    captioned,
    curves,
    figure,
    heat_map,
    in_colour,
    in_shades,
    stacked,
)
from docker.grafana.promql import CLASSIFY, or_none, quantile, rate

# As in the recording rules: a refusal is a 429, a fault is a 5xx. Everything else is the client's doing.
REFUSAL = "overloaded"
FAULTS = "inference_failed|internal_error|no_worker|worker_lost|stopping|deadline_exceeded"


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = page(
        OPERATION_UID,
        "ConvNet-AIG: operation",
        "Whether the service is up, what is asked of it, how fast it answers and what it uses.",
        (ADAPTIVITY_UID, "ConvNet-AIG: adaptivity", "What the gates decide and what that saves"),
    )
    add_row(board, None, [*_state(), *_load()])
    add_row(board, "Requests", [_requests(), _errors(), _images()])
    add_row(board, "Latency", [latency(), mean_parts(), *parts()])
    add_row(board, "Queue and batches", [_queue(), _batch_sizes()])
    add_row(board, "Degraded answers", [budget_limit(), rechecked()])
    add_row(board, "Processes", [_cpu(), _memory(), _restarts()])
    add_row(board, "GPU", devices())
    add_row(board, "Alerts", [_alerts()])
    return board


def _state() -> list[stat.Panel]:
    ready = Caption(
        "Ready",
        "Whether the service takes requests. Not ready for more than a minute after a start: read its log; where it is "
        "not running at all, the scrape fails and this says so too.",
        "bool",
        high=1,
    )
    firing = Caption(
        "Firing alerts",
        "How many alerts fire now. The last panel tells which; each alert's description tells what to do.",
        "short",
    )
    return [
        figure(ready, "min(aig_ready) or vector(0)")
        .mappings([style.text_for({"1": ("ready", style.GOOD), "0": ("not ready", style.BAD)})])
        .color_mode(models.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(models.BigValueGraphMode.NONE),
        figure(firing, 'count(ALERTS{alertstate="firing"}) or vector(0)').thresholds(style.thresholds(bad=1)),
    ]


def _load() -> list[stat.Panel]:
    asked = Caption("Requests", "Requests a second for a classification, refused ones included.", "reqps")
    faults = Caption(
        "Faults",
        "Share of the valid requests of the last 5 minutes that failed through the service's fault (5xx). Above 0: see "
        "which kind under Errors by type, then the log.",
        "percentunit",
        high=1,
    )
    refusals = Caption(
        "Refused",
        "Share of the valid requests of the last 5 minutes that got a 429. Lasting refusals mean that more is asked "
        "than this machine can do: send less, or run more of it.",
        "percentunit",
        high=1,
    )
    p99 = Caption(
        "Latency, p99",
        "99 of 100 requests are answered within this time, refusals included. When it rises, Where the time goes tells "
        "whether decoding, waiting or inference takes longer.",
        "s",
    )
    queue = Caption(
        "Queue used",
        "Share of the queue that is taken, in the fullest instance. At 100% requests are refused.",
        "percentunit",
        high=1,
    )
    restarts = Caption(
        "Worker restarts",
        "Inference workers replaced in the time shown because they died or hung. One is survived without harm to other "
        "requests; several mean a faulty image, driver or too little memory: the log names the reason.",
        "short",
    )
    slowest = quantile(0.99, f"aig_request_seconds{{{CLASSIFY}}}")
    restarted = "sum(increase(aig_worker_restarts_total[$__range])) or vector(0)"
    return [
        figure(asked, f"{rate(f'aig_requests_total{{{CLASSIFY}}}')} or vector(0)").color_scheme(
            style.fixed(style.NEUTRAL)
        ),
        figure(faults, "max(job:aig_classify_faults:ratio_rate5m) or vector(0)").thresholds(
            style.thresholds(warning=0.01, bad=0.05)
        ),
        figure(refusals, "max(job:aig_classify_refusals:ratio_rate5m) or vector(0)").thresholds(
            style.thresholds(warning=0.01, bad=0.05)
        ),
        figure(p99, slowest).thresholds(style.thresholds(warning=0.1, bad=0.5)),
        figure(queue, "max(instance:aig_queue_depth:ratio)").thresholds(style.thresholds(warning=0.5, bad=0.8)),
        figure(restarts, restarted, is_instant=True).decimals(0).thresholds(style.thresholds(warning=1, bad=4)),
    ]


def _requests() -> timeseries.Panel:
    caption = Caption(
        "Requests by outcome",
        "What became of the requests for a classification. Refused: a 429, because the queue was full. Service at "
        "fault: a 5xx. Client at fault: not an image, too large, gone before the answer, and so on.",
        "reqps",
    )
    others = f'{CLASSIFY}, outcome!~"ok|{REFUSAL}|{FAULTS}"'
    kinds = [
        ("answered", f'{CLASSIFY}, outcome="ok"', style.GOOD),
        ("client at fault", others, style.EXPECTED),
        ("refused", f'{CLASSIFY}, outcome="{REFUSAL}"', style.WARNING),
        ("service at fault", f'{CLASSIFY}, outcome=~"{FAULTS}"', style.BAD),
    ]
    series = [
        Series(f"{rate(f'aig_requests_total{{{labels}}}')} or vector(0)", name, colour)
        for name, labels, colour in kinds
    ]
    return stacked(curves(caption, series, width=8))


def _errors() -> timeseries.Panel:
    caption = Caption(
        "Errors by type",
        "Requests that were not answered, by the type in the error's body. overloaded: more is asked than can be done. "
        "deadline_exceeded: images wait too long. inference_failed, internal_error, no_worker, worker_lost: a fault, "
        "see the log. Most others are a client's: tell whoever runs it.",
        "reqps",
    )
    errors = rate(f'aig_requests_total{{{CLASSIFY}, outcome!="ok"}}', "outcome")
    panel = curves(caption, [Series(or_none(f"{errors} > 0", "outcome"), "{{outcome}}")], width=8)
    return _in_state_colours(stacked(panel, as_bars=True))


def _images() -> timeseries.Panel:
    caption = Caption(
        "Images by outcome",
        "Images a second, each in its own request or several in a batch. ok: classified. An image of a batch can fail "
        "alone, so an error may stand here that Errors by type does not show.",
        "suffix:img/s",
    )
    images = rate("aig_images_total", "outcome")
    panel = curves(caption, [Series(or_none(f"{images} > 0", "outcome"), "{{outcome}}")], width=8)
    return _in_state_colours(stacked(panel))


def _in_state_colours(panel: timeseries.Panel) -> timeseries.Panel:
    """Outcomes in the colours of the first panel, but that each of the client's mistakes has one of its own."""
    for outcomes, colour in (("ok|none", style.GOOD), (REFUSAL, style.WARNING), (FAULTS, style.BAD)):
        panel.override_by_regexp(f"/^({outcomes})$/", [in_colour(colour)])
    return panel


def _queue() -> timeseries.Panel:
    caption = Caption(
        "Queue",
        "Images that wait for a worker, at the moment of each scrape, and how many may. A queue that stays filled "
        "means that more is asked than can be done: send less, run more instances, or accept refusals. A longer queue "
        "only makes everyone wait longer.",
        "short",
    )
    depth = Series("sum(aig_queue_depth)", "waiting", style.QUEUE)
    return curves(caption, [depth, Series("sum(aig_queue_capacity)", "capacity", style.BAD, is_dashed=True)])


def _batch_sizes() -> heatmap.Panel:
    caption = Caption(
        "Batch sizes",
        "How many images were run together, each batch in the row of the size it did not exceed. On a CPU batches "
        "are mostly of one, where larger ones were measured not to pay; on a GPU many should be large under load.",
        "short",
    )
    batches = Series("sum by (le) (increase(aig_batch_size_bucket[$__rate_interval]))", "{{le}}")
    return in_shades(heat_map(caption, batches, PromQueryFormat.HEATMAP), style.INFERENCE)


def _cpu() -> timeseries.Panel:
    caption = Caption(
        "CPU by process",
        "Cores' worth of processor time. Workers near one core for each of their threads are fully used. A server "
        "process near one core is the limit itself: run more instances.",
        "suffix:cores",
    )
    return curves(caption, [Series(rate("aig_cpu_seconds_total", "process"), "{{process}}")], width=8)


def _memory() -> timeseries.Panel:
    caption = Caption(
        "Memory by process",
        "Memory that is resident. It should level off after the first minutes of load. One that keeps growing will be "
        "killed in the end: restart it in a quiet moment and report what it was asked.",
        "bytes",
    )
    series = [Series("sum by (process) (aig_resident_memory_bytes)", "{{process}}")]
    return stacked(curves(caption, series, width=8))


def _restarts() -> timeseries.Panel:
    caption = Caption(
        "Worker restarts",
        "Inference workers replaced because they died or were stuck. Any is worth a look in the log; repeated deaths "
        "at growing memory mean that the machine is too small.",
        "short",
    )
    restarts = "sum by (reason) (increase(aig_worker_restarts_total[$__rate_interval])) > 0"
    panel = curves(caption, [Series(or_none(restarts, "reason"), "{{reason}}")], width=8)
    return stacked(panel, as_bars=True)


def _alerts() -> statetimeline.Panel:
    caption = Caption(
        "Firing alerts over time",
        "One line for each alert that fired. The alert's own description, in Prometheus under Alerts, says what to do.",
        "bool",
        high=1,
    )
    panel = captioned(statetimeline.Panel(), caption, 24, 5)
    panel.mappings([style.text_for({"1": ("firing", style.BAD), "0": ("quiet", style.GOOD)})])
    panel.color_scheme(style.by_threshold()).thresholds(style.thresholds(bad=1)).merge_values(True)
    panel.legend(common.VizLegendOptions().show_legend(False).display_mode(models.LegendDisplayMode.LIST))
    firing = or_none('max by (alertname) (ALERTS{alertstate="firing"})', "alertname", "no alert")
    return asking(panel, [Series(firing, "{{alertname}}")], PromQueryFormat.TIME_SERIES)
