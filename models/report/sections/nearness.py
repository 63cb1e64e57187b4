"""How near the decisions are: margins as they lie around the threshold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from artifact.agreement import MARGIN_TOLERANCE
from models import intervals
from models.palette import BLUE, DEEP_BLUE, GREY, VERMILION
from models.report.drawing import add_legend, blank, blank_rows, name_axes
from models.report.measurements import Measurements
from models.report.section import Chart, Section, Table
from models.report.subject import Subject
from models.report.wording import json_estimate, number, percent, percent_interval

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_QUESTION = "How near are the decisions?"
_METHOD = (
    "The distance of a decision is its margin plus the gate offset minus the threshold: above 0 the gate is open. "
    f"Export lets a decision fall either way by rounding within {MARGIN_TOLERANCE:g} of the threshold, times the "
    "gate's largest margin where that exceeds 1."
)


def describe_nearness(subject: Subject, measured: Measurements) -> Section:
    """The section on margins."""
    structure = subject.classifier.structure
    margins = measured.answers.evaluation.margins
    if not margins.size:
        return Section("nearness", _QUESTION, ("This network has no gates, so nothing is decided.",), {}, _METHOD)
    distances = margins + subject.gate_offset - structure.gate_threshold
    near: np.ndarray = np.abs(distances) <= MARGIN_TOLERANCE * np.abs(margins).max(axis=0, initial=1)
    names = [structure.block_names[index] for index in structure.gated]
    quantiles = np.quantile(distances, _QUANTILES, axis=0).T  # (G, quantiles)
    figures: dict[str, Any] = {
        "margin_tolerance": MARGIN_TOLERANCE,
        "images_with_a_decision_within_tolerance": json_estimate(intervals.share(np.any(near, axis=1))),
        "decisions_within_tolerance": float(near.mean()),
        "median_absolute_distance": float(np.median(np.abs(distances))),
        "blocks": {
            name: {
                "within_tolerance": float(near[:, column].mean()),
                "median_absolute_distance": float(np.median(np.abs(distances[:, column]))),
                "distance_quantiles": dict(zip(map(str, _QUANTILES), quantiles[column].tolist(), strict=True)),
            }
            for column, name in enumerate(names)
        },
    }
    return Section(
        key="nearness",
        question=_QUESTION,
        findings=tuple(_findings(names, distances, near)),
        figures=figures,
        method=_METHOD,
        charts=(
            Chart(_draw_histogram(distances), "All decisions by their distance from the threshold."),
            Chart(_draw_blocks(names, quantiles), "Distances of each gated block: median, half and 90% of the images."),
        ),
        tables=(_table(names, distances, near, quantiles),),
    )


def _findings(names: list[str], distances: np.ndarray, near: np.ndarray) -> Iterator[str]:
    narrow = intervals.share(np.any(near, axis=1))
    yield (
        f"{percent_interval(narrow, 2)} of the images have a decision so near the threshold "
        f"that rounding may turn it, which is {percent(near.mean(), 3)} of all decisions."
    )
    typical = np.median(np.abs(distances), axis=0)
    yield (
        f"Half of all decisions are farther than {number(float(np.median(np.abs(distances))))} from the threshold, and "
        f"{percent((np.abs(distances) < 0.1).mean())} are within 0.1. {names[int(typical.argmin())]} decides most "
        f"narrowly (median {number(float(typical.min()))}), {names[int(typical.argmax())]} most clearly "
        f"({number(float(typical.max()))})."
    )


def _draw_histogram(distances: np.ndarray) -> Figure:
    figure, axes = blank()
    low, high = np.quantile(distances, (0.002, 0.998))
    width = max(float(high - low) / 50, 1e-6)
    # Edges at multiples of the width keep open and closed apart.
    edges = np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width
    values = np.clip(distances, edges[0], edges[-1]).ravel()
    axes.hist(values[values <= 0], edges.tolist(), color=BLUE, label="closed")
    axes.hist(values[values > 0], edges.tolist(), color=DEEP_BLUE, label="open")
    axes.axvline(0, color=VERMILION, linewidth=1.2)
    name_axes(axes, "distance from the threshold", "decisions")
    add_legend(axes, 2)
    return figure


def _draw_blocks(names: list[str], quantiles: np.ndarray) -> Figure:
    figure, axes = blank_rows([name.replace("_", " ") for name in names])
    rows = np.arange(len(names))
    axes.hlines(rows, quantiles[:, 0], quantiles[:, 4], color=GREY, linewidth=1.2, label="90% of the images")
    axes.hlines(rows, quantiles[:, 1], quantiles[:, 3], color=BLUE, linewidth=6, label="half of the images")
    axes.plot(quantiles[:, 2], rows, "o", color=DEEP_BLUE, markersize=5, label="median")
    axes.axvline(0, color=VERMILION, linewidth=1.2)
    name_axes(axes, "distance from the threshold")
    add_legend(axes, 3)
    return figure


def _table(names: list[str], distances: np.ndarray, near: np.ndarray, quantiles: np.ndarray) -> Table:
    rows = tuple(
        (
            name,
            *(number(float(quantiles[column, index])) for index in (0, 2, 4)),
            percent((np.abs(distances[:, column]) < 0.1).mean()),
            percent(near[:, column].mean(), 2),
        )
        for column, name in enumerate(names)
    )
    head = ("block", "5% below", "median", "95% below", "within 0.1", "within tolerance")
    return Table(head, rows, "Distances from the threshold by block")
