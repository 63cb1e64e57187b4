"""How many blocks each class needs, and whether groups of classes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from models import intervals
from models.evaluation import Evaluation
from models.intervals import Estimate
from models.palette import DEEP_BLUE, GREEN, GREY, VERMILION
from models.pictures import shown_classes
from models.report.drawing import add_legend, blank_rows, name_axes, reaches
from models.report.measurements import Measurements
from models.report.section import Chart, Section, Table
from models.report.subject import Groups, Subject
from models.report.wording import json_estimate, number, number_interval, percent

_METHOD = (
    "The mean number of executed blocks over the images of each class, with 95% confidence intervals. They hold "
    "for other images of these classes; a group is these classes only, not every class that could be in it. The "
    "paper compares animals with man-made things, of which its networks need about one block fewer for animals."
)
_COLOURS, _MARKERS = (VERMILION, DEEP_BLUE, GREEN, GREY), ("o", "s", "^", "D")
_UNGROUPED = "other classes"


def describe_classes(subject: Subject, measured: Measurements) -> Section:
    """The section on depth by class."""
    evaluation = measured.answers.evaluation
    blocks = evaluation.executed.sum(axis=1)
    order = _by_depth(evaluation)
    means = {evaluation.labels[index]: intervals.mean(blocks[evaluation.classes == index]) for index in order}
    groups = compared_groups(evaluation, subject.groups)
    figures: dict[str, Any] = {
        "executed_blocks": json_estimate(intervals.mean(blocks)),
        "classes": {label: json_estimate(mean) for label, mean in means.items()},
        "groups": {
            name: {
                "classes": list(subject.groups[name]),
                "executed_blocks": json_estimate(mean),
                "minus_other_groups": json_estimate(gap),
            }
            for name, (mean, gap) in groups.items()
        },
    }
    return Section(
        key="classes",
        question="How many blocks does each class need?",
        findings=(_extremes(evaluation, blocks, order), *_group_findings(groups)),
        figures=figures,
        method=_METHOD,
        missing=() if groups else ("Groups of classes: name them in a JSON file and give it with --groups.",),
        charts=(Chart(_draw(evaluation, means, subject.groups), "Blocks executed by class, with 95% intervals."),),
        tables=(_table(evaluation, means),),
    )


def compared_groups(evaluation: Evaluation, groups: Groups) -> dict[str, tuple[Estimate, Estimate]]:
    """Of each group that has images: its mean number of blocks, and how much that is above all other groups'."""
    blocks = evaluation.executed.sum(axis=1)
    members = {
        name: np.isin(evaluation.classes, [evaluation.labels.index(label) for label in labels])
        for name, labels in groups.items()
    }
    members = {name: chosen for name, chosen in members.items() if chosen.any()}
    if len(members) < 2:
        return {}
    grouped = np.logical_or.reduce(list(members.values()))
    return {
        name: (intervals.mean(blocks[chosen]), intervals.difference(blocks[chosen], blocks[grouped & ~chosen]))
        for name, chosen in members.items()
    }


def _by_depth(evaluation: Evaluation) -> np.ndarray:
    """Indices of the classes shown, from fewest to most blocks."""
    shown = shown_classes(evaluation)
    blocks = evaluation.executed.sum(axis=1)
    return shown[np.argsort([blocks[evaluation.classes == index].mean() for index in shown], kind="stable")]


def _extremes(evaluation: Evaluation, blocks: np.ndarray, order: np.ndarray) -> str:
    total = evaluation.executed.shape[1]
    if len(order) < 2 or blocks.min() == blocks.max():
        return f"Every image needs the same number of blocks or there is one class only: {number(blocks.mean(), 1)}."
    fewest, most = blocks[evaluation.classes == order[0]], blocks[evaluation.classes == order[-1]]
    gap = intervals.difference(most, fewest)
    low, high = evaluation.labels[order[0]], evaluation.labels[order[-1]]
    return (
        f"Of {total} blocks, {low} needs the fewest, {number_interval(intervals.mean(fewest))}, and {high} the most, "
        f"{number_interval(intervals.mean(most))}: {number_interval(gap)} more."
    )


def _group_findings(groups: Mapping[str, tuple[Estimate, Estimate]]) -> Iterator[str]:
    names = list(groups)[:1] if len(groups) == 2 else list(groups)  # of two, one comparison tells it all
    for name in names:
        mean, gap = groups[name]
        others = f"the {next(other for other in groups if other != name)}" if len(groups) == 2 else "the other groups"
        if not gap.has_interval or gap.excludes_zero:
            amount = Estimate(abs(gap.value), *sorted((abs(gap.low), abs(gap.high))))
            verdict = f"{number_interval(amount)} {'more' if gap.value > 0 else 'fewer'} than {others}"
        else:
            verdict = f"no more and no fewer than {others} as far as can be told (difference {number_interval(gap)})"
        yield f"The {name} need {number(mean.value)} blocks on average, {verdict}."


def _draw(evaluation: Evaluation, means: Mapping[str, Estimate], groups: Groups) -> Figure:
    group_of = {label: name for name, labels in groups.items() for label in labels}
    figure, axes = blank_rows(list(means))
    rows = {label: row for row, label in enumerate(means)}
    names = [name for name in (*groups, _UNGROUPED) if any(group_of.get(label, _UNGROUPED) == name for label in means)]
    for position, name in enumerate(names):
        chosen = [label for label in means if group_of.get(label, _UNGROUPED) == name]
        estimates = [means[label] for label in chosen]
        axes.errorbar(
            [estimate.value for estimate in estimates],
            [rows[label] for label in chosen],
            xerr=reaches(estimates),
            color=_COLOURS[position % len(_COLOURS)],
            marker=_MARKERS[position % len(_MARKERS)],
            markersize=6,
            capsize=3,
            linestyle="none",
            label=name,
        )
    overall = float(evaluation.executed.sum(axis=1).mean())
    axes.axvline(overall, color=GREY, linestyle=":", linewidth=1.2, label=f"all images, {overall:.2f}")
    name_axes(axes, f"blocks executed, of {evaluation.executed.shape[1]}")
    if len(names) > 1:
        add_legend(axes, 3)
    return figure


def _table(evaluation: Evaluation, means: Mapping[str, Estimate]) -> Table:
    rows = []
    for label, mean in means.items():
        index = evaluation.labels.index(label)
        accuracy, cost = evaluation.scores.recall[index], evaluation.class_mac_shares[index]
        rows.append((label, number_interval(mean), percent(cost), percent(accuracy)))
    return Table(("class", "blocks (95% interval)", "MACs", "accuracy"), tuple(rows), "Depth, compute and accuracy")
