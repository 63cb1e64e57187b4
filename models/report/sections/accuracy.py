"""How accurate the network is for how much compute, beside the same network without gates and with all its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from models import intervals
from models.palette import BLUE, DEEP_BLUE, GREEN, GREY, VERMILION
from models.report.budgets import Budget
from models.report.drawing import add_legend, as_percent, blank, name_axes, note, reaches
from models.report.measurements import Measurements
from models.report.section import Chart, Section, Table
from models.report.soft_gates import BY_PROBABILITY
from models.report.subject import Subject
from models.report.wording import json_estimate, number, percent, percent_interval, points_interval

_METHOD = (
    "Compute is counted in multiply-accumulates (MACs), gates included, relative to the same network without "
    "gates. Intervals hold with 95% confidence; differences are paired, image by image. Other compute budgets "
    "come from adding a gate offset to every margin, without training anything again."
)


def describe_accuracy(subject: Subject, measured: Measurements) -> Section:
    """The section on accuracy and compute."""
    evaluation = measured.answers.evaluation
    hits = evaluation.correct
    figures: dict[str, Any] = {
        "images": len(hits),
        "accuracy": json_estimate(intervals.share(hits)),
        "mac_share": float(evaluation.mac_share.mean()),
        "mac_share_p05": float(np.quantile(evaluation.mac_share, 0.05)),
        "mac_share_p95": float(np.quantile(evaluation.mac_share, 0.95)),
        "executed_blocks": float(evaluation.executed.sum(axis=1).mean()),
        "sampled_images": len(subject.sample),
        "budgets": [_budget_figures(budget) for budget in measured.budgets],
        "ungated": None,
        "every_block_executed": {
            kind: {
                "accuracy": json_estimate(intervals.share(scaled)),
                "mac_share": _full_share(subject),
                "gated_minus_this": json_estimate(intervals.paired_difference(hits, scaled)),
            }
            for kind, scaled in measured.scaled_hits.items()
        },
    }
    if subject.ungated is not None and measured.ungated_hits is not None:
        figures["ungated"] = {
            "name": subject.ungated.structure.name,
            "accuracy": json_estimate(intervals.share(measured.ungated_hits)),
            "mac_share": _ungated_share(subject),
            "gated_minus_this": json_estimate(intervals.paired_difference(hits, measured.ungated_hits)),
        }
    return Section(
        key="accuracy",
        question="How accurate is it, for how much compute?",
        findings=tuple(_findings(measured, hits)),
        figures=figures,
        method=_METHOD + _sample_note(subject),
        missing=tuple(_missing(subject, measured)),
        charts=(Chart(_draw(subject, measured, hits), "Accuracy by compute, with 95% intervals."),),
        tables=(_budget_table(measured.budgets),) if measured.budgets else (),
    )


def _findings(measured: Measurements, hits: np.ndarray) -> Iterator[str]:
    evaluation = measured.answers.evaluation
    low, high = np.quantile(evaluation.mac_share, (0.05, 0.95))
    yield (
        f"It classifies {percent_interval(intervals.share(hits))} of {len(hits):,} images correctly and spends "
        f"{percent(evaluation.mac_share.mean())} of the compute of the same network without gates; "
        f"90% of the images spend {percent(low, 0)} to {percent(high, 0)}."
    )
    if measured.ungated_hits is not None:
        gap = intervals.paired_difference(hits, measured.ungated_hits)
        verdict = "which is more than chance explains" if gap.excludes_zero else "which chance may explain"
        yield (
            f"The network without gates reaches {percent_interval(intervals.share(measured.ungated_hits))}: the gated "
            f"one differs by {points_interval(gap)}, {verdict}."
        )
    if measured.scaled_hits:
        gap = intervals.paired_difference(hits, measured.scaled_hits[BY_PROBABILITY])
        yield (
            f"With every block executed and {BY_PROBABILITY}, it reaches "
            f"{percent(float(measured.scaled_hits[BY_PROBABILITY].mean()), 2)}; against that, choosing blocks makes "
            f"{points_interval(gap)}, {_meaning(gap)}."
        )
    yield from _cheaper(measured.budgets, measured.answers.evaluation.mac_share.mean())


def _meaning(gap: intervals.Estimate) -> str:
    """What the gap between choosing blocks and averaging over all of them says."""
    if not gap.excludes_zero:
        return "a difference that chance may explain: the choice saves compute without a loss, and without a gain"
    if gap.value > 0:
        return "so the choice itself is worth something: the gates do more than regularise the training"
    return "so on these images executing everything answers better, and what the choice gains is compute"


def _cheaper(budgets: list[Budget], mac_share: float) -> Iterator[str]:
    """The cheapest budget tried that loses at most a point of accuracy."""
    current = [budget for budget in budgets if abs(budget.mac_share.mean() - mac_share) < 0.02]
    if not current:
        return
    base = min(current, key=lambda budget: abs(float(budget.mac_share.mean()) - mac_share))
    good_enough = [budget for budget in budgets if budget.correct.mean() >= base.correct.mean() - 0.01]
    cheapest = min(good_enough, key=lambda budget: float(budget.mac_share.mean()))
    if cheapest.mac_share.mean() > base.mac_share.mean() - 0.005:
        yield "No cheaper setting of the gate offset that was tried stays within one point of this accuracy."
        return
    loss = intervals.paired_difference(cheapest.correct, base.correct)
    yield (
        f"The same network can be run cheaper: at gate offset {cheapest.label} it spends "
        f"{percent(cheapest.mac_share.mean())} and its accuracy changes by {points_interval(loss)}."
    )


def _missing(subject: Subject, measured: Measurements) -> Iterator[str]:
    if subject.ungated is None:
        yield "The network without gates: give its checkpoint or artifact with --ungated."
    if subject.trained is None:
        yield "Every block executed and scaled by its gate's probability: give the checkpoint beside the artifact."
    if not measured.budgets:
        yield "Other compute budgets: this network has no gates."


def _draw(subject: Subject, measured: Measurements, hits: np.ndarray) -> Figure:
    figure, axes = blank(3.6)
    axes.grid(visible=True, axis="x")
    # With all gates closed there is so little left that its point would press all others together.
    budgets = [budget for budget in measured.budgets if budget.gate_offset > 0 or not budget.decides_for_all]
    if budgets:
        costs = [float(budget.mac_share.mean()) for budget in budgets]
        reached = [intervals.share(budget.correct) for budget in budgets]
        bounds = [each.low for each in reached], [each.high for each in reached]
        axes.fill_between(costs, *bounds, color=BLUE, alpha=0.25, linewidth=0)
        label = "all margins shifted by a gate offset"
        axes.plot(costs, [each.value for each in reached], color=DEEP_BLUE, marker="o", markersize=4, label=label)
        for index, shift in ((0, (7, -4)), (-1, (-6, -14))):
            note(axes, budgets[index].label, (costs[index], reached[index].value), shift)
    own = intervals.share(hits)
    marks = [("this network", float(measured.answers.evaluation.mac_share.mean()), own, VERMILION, "D")]
    if measured.ungated_hits is not None:
        marks.append(
            ("without gates", _ungated_share(subject), intervals.share(measured.ungated_hits), GREY, "s"),
        )
    if measured.scaled_hits:
        scaled = intervals.share(measured.scaled_hits[BY_PROBABILITY])
        marks.append(("every block, scaled by its gate's probability", _full_share(subject), scaled, GREEN, "^"))
    for label, cost, accuracy, colour, marker in marks:
        axes.errorbar(
            cost,
            accuracy.value,
            yerr=reaches([accuracy]),
            color=colour,
            marker=marker,
            markersize=7,
            capsize=3,
            linestyle="none",
            label=label,
            zorder=3,
        )
    name_axes(axes, "MACs (% of the network without gates)", "accuracy")
    as_percent(axes, "x", "y")
    add_legend(axes)
    return figure


def _budget_table(budgets: list[Budget]) -> Table:
    rows = tuple(
        (
            budget.label,
            percent(budget.mac_share.mean()),
            number(budget.executed_blocks.mean(), 1),
            percent_interval(intervals.share(budget.correct)),
        )
        for budget in budgets
    )
    return Table(("gate offset", "MACs", "blocks", "accuracy (95% interval)"), rows, "Accuracy by gate offset")


def _budget_figures(budget: Budget) -> dict[str, Any]:
    return {
        "gate_offset": budget.gate_offset,
        "mac_share": float(budget.mac_share.mean()),
        "executed_blocks": float(budget.executed_blocks.mean()),
        "accuracy": json_estimate(intervals.share(budget.correct)),
    }


def _ungated_share(subject: Subject) -> float:
    assert subject.ungated is not None
    return subject.ungated.structure.total_macs / subject.classifier.structure.ungated_macs


def _full_share(subject: Subject) -> float:
    """Cost of every block and every gate."""
    structure = subject.classifier.structure
    return structure.total_macs / structure.ungated_macs


def _sample_note(subject: Subject) -> str:
    if len(subject.sample) == len(subject.images):
        return ""
    return f" The budgets were measured on {len(subject.sample):,} of the images, evenly spread."
