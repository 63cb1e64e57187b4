"""How stable the path is when the image changes a little without showing anything else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from models.palette import DEEP_BLUE, VERMILION
from models.report.drawing import add_legend, as_percent, blank_rows, name_axes, reaches
from models.report.measurements import Measurements
from models.report.response import Response
from models.report.section import Chart, Section, Table
from models.report.subject import Subject
from models.report.wording import json_estimate, percent, percent_interval

_METHOD = (
    "Each image is changed and asked about again. A gate counts as changed where it decides otherwise than for "
    "the unchanged image, a prediction where it names another class, right or wrong. Noise is Gaussian with the "
    "standard deviation told, in levels of 255. Changes apply to the pixels the network sees, after resizing."
)


def describe_stability(subject: Subject, measured: Measurements) -> Section:
    """The section on small changes."""
    changes = measured.changes
    return Section(
        key="stability",
        question="How stable is the path?",
        findings=tuple(_findings(changes)),
        figures={
            "images": len(subject.sample),
            "changes": {change.name: response_figures(change) for change in changes},
        },
        method=f"{_METHOD} Measured on {len(subject.sample):,} images, evenly spread.",
        charts=(Chart(_draw(changes), "Share of gates and of predictions that change, with 95% intervals."),),
        tables=(response_table("change", changes, "What each change does"),),
    )


def response_figures(response: Response) -> dict[str, Any]:
    """A response for report.json."""
    return {
        "accuracy": json_estimate(response.accuracy),
        "changed_predictions": json_estimate(response.turned_share),
        "changed_gates": json_estimate(response.changed_gate_share),
        "same_path": json_estimate(response.same_path_share),
    }


def response_table(kind: str, responses: list[Response], caption: str) -> Table:
    """Responses as rows; `kind` names what changed the images."""
    rows = tuple(
        (
            response.name,
            percent(response.changed_gate_share.value),
            percent(response.same_path_share.value),
            percent(response.turned_share.value),
            percent_interval(response.accuracy),
        )
        for response in responses
    )
    return Table((kind, "gates changed", "whole path kept", "predictions changed", "accuracy"), rows, caption)


def _findings(changes: list[Response]) -> Iterator[str]:
    gates = {change.name: change.changed_gate_share.value for change in changes}
    turned = {change.name: change.turned_share.value for change in changes}
    if any(map(math.isnan, gates.values())):
        yield f"Without gates there is no path to change; {percent(mean(turned.values()))} of predictions change."
        return
    most, least = max(gates, key=lambda name: gates[name]), min(gates, key=lambda name: gates[name])
    yield (
        f"Over {len(changes)} small changes, {percent(mean(gates.values()))} of the gates and "
        f"{percent(mean(turned.values()))} of the predictions change on average."
    )
    yield (
        f"The path changes most under “{most}” ({percent(gates[most])} of the gates, {percent(turned[most])} of the "
        f"predictions) and least under “{least}” ({percent(gates[least])} and {percent(turned[least])})."
    )
    kept = [change.same_path_share.value for change in changes]
    yield f"The whole path stays as it is for {percent(min(kept), 0)} to {percent(max(kept), 0)} of the images."


def _draw(changes: list[Response]) -> Figure:
    figure, axes = blank_rows([change.name for change in changes])
    series = [("predictions", [change.turned_share for change in changes], VERMILION, "D", 0.14)]
    if changes[0].gates:
        series.insert(0, ("gates", [change.changed_gate_share for change in changes], DEEP_BLUE, "o", -0.14))
    for name, estimates, colour, marker, shift in series:
        axes.errorbar(
            [estimate.value for estimate in estimates],
            np.arange(len(changes)) + shift,
            xerr=reaches(estimates),
            color=colour,
            marker=marker,
            markersize=5,
            capsize=2,
            linestyle="none",
            label=f"{name} that change",
        )
    axes.set_xlim(left=0)
    as_percent(axes, "x")
    name_axes(axes, "share that changes")
    add_legend(axes, 2)
    return figure
