"""How the network holds under attack, beside the same network without gates, and what an attack does to the path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from models import intervals
from models.palette import DEEP_BLUE, GREY, VERMILION
from models.report.attack import STRENGTHS
from models.report.drawing import add_legend, as_percent, blank, name_axes, reaches
from models.report.measurements import Attacks, Measurements
from models.report.section import Chart, Section, Table
from models.report.sections.stability import response_figures, response_table
from models.report.subject import Subject
from models.report.wording import json_estimate, listed, percent, percent_interval, points_interval

_METHOD = (
    "The fast gradient sign attack (Goodfellow et al. 2015) moves every value of the image by ε levels of 255, in "
    "the direction in which the loss of the true class grows, and clips to valid images. Each network is attacked "
    "with its own gradient. Gates decide by a hard threshold, which has no gradient: it passes through the "
    "executed path only, and the gates decide anew on the attacked image. The change by chance is as large but "
    "has no aim. It is a weak attack of one step: what survives it is not proven safe. Run in PyTorch."
)
_QUESTION = "Does it hold under attack?"


def describe_robustness(subject: Subject, measured: Measurements) -> Section:
    """The section on the fast gradient sign attack."""
    attacks = measured.attacks
    if attacks is None:
        return Section(
            key="robustness",
            question=_QUESTION,
            findings=("This was not measured.",),
            figures={},
            method=_METHOD,
            missing=("The attack needs gradients: give the checkpoint beside the artifact.",),
        )
    charts = [Chart(_draw_accuracy(attacks), "Accuracy by strength, with 95% intervals.")]
    if attacks.gated[0].gates:
        charts.append(Chart(_draw_paths(attacks), "Share of gates that decide otherwise, with 95% intervals."))
    tables = [response_table("attack", attacks.gated, "This network under attack")]
    if attacks.ungated:
        tables.append(_ungated_table(attacks))
    note = "Attack on the network without gates: give its checkpoint, not its artifact, with --ungated."
    return Section(
        key="robustness",
        question=_QUESTION,
        findings=tuple(_findings(attacks)),
        figures={
            "images": len(subject.sample),
            "strengths": [0, *STRENGTHS],
            "attack": [response_figures(response) for response in attacks.gated],
            "by_chance": [response_figures(response) for response in attacks.by_chance],
            "ungated": [json_estimate(response.accuracy) for response in attacks.ungated],
            "gated_minus_ungated": [json_estimate(gap) for gap in _gaps(attacks)],
        },
        method=f"{_METHOD} Measured on {len(subject.sample):,} images, evenly spread.",
        missing=() if attacks.ungated else (note,),
        charts=tuple(charts),
        tables=tuple(tables),
    )


def _gaps(attacks: Attacks) -> list[intervals.Estimate]:
    """By strength, how much more accurate the gated network is than the other, where there is one."""
    pairs = zip(attacks.gated, attacks.ungated, strict=False)
    return [intervals.paired_difference(gated.correct, ungated.correct) for gated, ungated in pairs]


def _findings(attacks: Attacks) -> Iterator[str]:
    gated = attacks.gated
    yield (
        f"The attack brings accuracy from {percent(gated[0].accuracy.value)} down to "
        f"{listed([f'{percent(each.accuracy.value)} at {each.name}' for each in gated[1:]])} (levels of 255); as "
        f"large a change by chance leaves {percent(attacks.by_chance[-1].accuracy.value)} at {gated[-1].name}."
    )
    if attacks.ungated:
        gaps = _gaps(attacks)[1:]
        names = [each.name for each in gated[1:]]
        told = dict(zip(names, gaps, strict=True))
        better = [name for name, gap in told.items() if gap.excludes_zero and gap.value > 0]
        worse = [name for name, gap in told.items() if gap.excludes_zero and gap.value < 0]
        parts = [f"{word} at {listed(chosen)}" for word, chosen in (("better", better), ("worse", worse)) if chosen]
        verdict = f"{listed(parts)} than" if parts else "neither better nor worse, as far as can be told, than"
        differences = listed([f"{points_interval(gap, 1)} at {name}" for name, gap in told.items()])
        yield f"It holds {verdict} the network without gates: {differences}."
    if gated[0].gates:
        last, chance = gated[-1], attacks.by_chance[-1]
        yield (
            f"At {gated[1].name} the attack changes {percent(gated[1].changed_gate_share.value)} of the gates and "
            f"{percent(gated[1].turned_share.value)} of the predictions; at {last.name} "
            f"{percent(last.changed_gate_share.value)} of the gates, a change by chance "
            f"{percent(chance.changed_gate_share.value)}."
        )


def _draw_accuracy(attacks: Attacks) -> Figure:
    figure, axes = blank()
    series = [("this network, attacked", attacks.gated, VERMILION, "o", "-")]
    if attacks.ungated:
        series.append(("without gates, attacked", attacks.ungated, DEEP_BLUE, "s", "-"))
    series.append(("this network, changed by chance", attacks.by_chance, GREY, "^", ":"))
    for name, responses, colour, marker, line in series:
        estimates = [response.accuracy for response in responses]
        _add_line(figure, name, estimates, colour, marker, line)
    axes.set_ylim(bottom=0)
    return _finish(figure, "accuracy")


def _draw_paths(attacks: Attacks) -> Figure:
    figure, axes = blank()
    for name, responses, colour, marker, line in (
        ("gates changed by the attack", attacks.gated, VERMILION, "o", "-"),
        ("gates changed by chance", attacks.by_chance, GREY, "^", ":"),
    ):
        estimates = [response.changed_gate_share for response in responses]
        _add_line(figure, name, estimates, colour, marker, line)
    axes.set_ylim(bottom=0)
    return _finish(figure, "gates that change")


def _add_line(
    figure: Figure, name: str, estimates: Sequence[intervals.Estimate], colour: str, marker: str, line: str
) -> None:
    values = [estimate.value for estimate in estimates]
    figure.axes[0].errorbar(
        np.arange(len(values)),
        values,
        yerr=reaches(estimates),
        color=colour,
        marker=marker,
        linestyle=line,
        markersize=5,
        capsize=3,
        label=name,
    )


def _finish(figure: Figure, vertical: str) -> Figure:
    axes = figure.axes[0]
    axes.set_xticks(range(1 + len(STRENGTHS)), [f"{strength}" for strength in (0, *STRENGTHS)])
    as_percent(axes, "y")
    name_axes(axes, "ε: change of every value (levels of 255)", vertical)
    add_legend(axes)
    return figure


def _ungated_table(attacks: Attacks) -> Table:
    rows = tuple(
        (response.name, percent_interval(response.accuracy), points_interval(gap, 1))
        for response, gap in zip(attacks.ungated, _gaps(attacks), strict=True)
    )
    return Table(("attack", "accuracy", "gated minus ungated"), rows, "The network without gates under attack")
