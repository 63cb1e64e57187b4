"""Whether hard images go deeper: blocks by image, by right and wrong answers, and by how hard the image was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models import intervals
from models.evaluation import Evaluation
from models.intervals import FEWEST_IMAGES, Estimate
from models.palette import BLUE, GREY, VERMILION, remove_frame
from models.report.drawing import as_percent, blank, name_axes, reaches
from models.report.measurements import Measurements
from models.report.section import Chart, Section, Table
from models.report.subject import Subject
from models.report.thumbnails import draw_gallery
from models.report.wording import counted, json_estimate, number, number_interval, percent, percent_interval

_TENTH = 10

_METHOD = (
    "How hard an image was is the cross-entropy of its true class. Hard and easy images are the hardest and the "
    "easiest tenth of each class, and their blocks are counted from the mean of the class, so that a class that "
    "is both hard and deep does not decide the answer. The rank correlation (Spearman) is likewise within "
    "classes. Intervals hold with 95% confidence."
)


@dataclass(frozen=True)
class Difficulty:
    """How depth goes with difficulty.

    Attributes:
        wrong_minus_right: blocks of wrongly classified images minus those of the others.
        hard_minus_easy: blocks of the hardest tenth of each class minus those of the easiest.
        correlation: of difficulty and blocks within classes.
    """

    wrong_minus_right: Estimate
    hard_minus_easy: Estimate
    correlation: Estimate


def describe_depth(subject: Subject, measured: Measurements) -> Section:
    """The section on depth by image."""
    answers = measured.answers
    evaluation = answers.evaluation
    blocks = evaluation.executed.sum(axis=1)
    difficulty = relate_difficulty(evaluation, answers.losses)
    by_count = accuracy_by_blocks(evaluation)
    figures: dict[str, Any] = {
        "images_by_blocks": {str(count): images for count, (images, _) in by_count.items()},
        "accuracy_by_blocks": {str(count): json_estimate(accuracy) for count, (_, accuracy) in by_count.items()},
        "wrong_minus_right": json_estimate(difficulty.wrong_minus_right),
        "hardest_minus_easiest_tenth": json_estimate(difficulty.hard_minus_easy),
        "rank_correlation_within_classes": json_estimate(difficulty.correlation),
    }
    by_loss = draw_gallery(
        "Easiest and hardest images",
        ("easiest", "hardest"),
        subject.images,
        answers,
        np.argsort(answers.losses, kind="stable"),
        subject.shows_images,
    )
    by_depth = draw_gallery(
        "Images with the fewest and the most blocks",
        ("fewest blocks", "most blocks"),
        subject.images,
        answers,
        np.argsort(blocks, kind="stable"),
        subject.shows_images,
    )
    return Section(
        key="depth",
        question="Does hard mean deeper?",
        findings=tuple(_findings(evaluation, difficulty, by_count)),
        figures=figures,
        method=_METHOD,
        charts=(Chart(_draw(by_count), "Images and accuracy by number of blocks executed, with 95% intervals."),),
        tables=(_table(by_count),),
        galleries=(by_loss, by_depth),
    )


def relate_difficulty(evaluation: Evaluation, losses: np.ndarray) -> Difficulty:
    """How depth goes with difficulty, losses being (N,) cross-entropies."""
    blocks = evaluation.executed.sum(axis=1).astype(float)
    right = evaluation.correct
    excess, rank = np.empty(len(blocks)), np.empty(len(blocks))  # against the class's mean; from 0, easiest, to 1
    for index in np.unique(evaluation.classes):
        members = np.flatnonzero(evaluation.classes == index)
        excess[members] = blocks[members] - blocks[members].mean()
        rank[members[np.argsort(losses[members], kind="stable")]] = (np.arange(len(members)) + 0.5) / len(members)
    return Difficulty(
        wrong_minus_right=intervals.difference(blocks[~right], blocks[right]),
        hard_minus_easy=intervals.difference(excess[rank > 1 - 1 / _TENTH], excess[rank < 1 / _TENTH]),
        correlation=intervals.rank_correlation(rank, excess),
    )


def accuracy_by_blocks(evaluation: Evaluation) -> dict[int, tuple[int, Estimate]]:
    """Number of images and their accuracy by number of blocks executed, rising."""
    blocks = evaluation.executed.sum(axis=1)
    hits = evaluation.correct
    return {
        int(count): (int((blocks == count).sum()), intervals.share(hits[blocks == count]))
        for count in np.unique(blocks)
    }


def _findings(
    evaluation: Evaluation, difficulty: Difficulty, by_count: dict[int, tuple[int, Estimate]]
) -> Iterator[str]:
    blocks = evaluation.executed.sum(axis=1)
    if len(by_count) == 1:
        yield f"Every image runs {counted(int(blocks[0]), 'block')}: depth says nothing here about difficulty."
        return
    yield _verdict(difficulty)
    low, high = np.quantile(blocks, (0.05, 0.95))
    yield (
        f"Images run {blocks.min()} to {blocks.max()} of {evaluation.executed.shape[1]} blocks, "
        f"{number(blocks.mean(), 1)} on average; 90% of them between {low:.0f} and {high:.0f}."
    )
    wrong = difficulty.wrong_minus_right
    if not np.isnan(wrong.value):
        direction = "more" if wrong.value >= 0 else "fewer"
        bounds = Estimate(abs(wrong.value), *sorted((abs(wrong.low), abs(wrong.high))))
        amount = number_interval(bounds) if wrong.excludes_zero else f"{number(abs(wrong.value))}, within chance,"
        yield f"Images it gets wrong run {amount} {direction} blocks than those it gets right."
    told = {count: accuracy for count, (images, accuracy) in by_count.items() if images >= FEWEST_IMAGES}
    if len(told) > 1:
        first, last = min(told), max(told)
        yield (
            f"Accuracy is {percent(told[first].value)} among images that run {counted(first, 'block')} and "
            f"{percent(told[last].value)} among those that run {last}."
        )


def _verdict(difficulty: Difficulty) -> str:
    """The answer to the section's question."""
    gap, correlation = difficulty.hard_minus_easy, difficulty.correlation
    figures = f"(rank correlation within classes {number_interval(correlation)})"
    if np.isnan(gap.value) or not gap.has_interval:
        return f"There are too few images to tell whether hard ones run more blocks {figures}."
    if not gap.excludes_zero:
        return f"Hard images run as many blocks as easy ones of their class, as far as can be told {figures}."
    answer, word = ("Yes", "more") if gap.value > 0 else ("No, the contrary", "fewer")
    amount = Estimate(abs(gap.value), *sorted((abs(gap.low), abs(gap.high))))
    return (
        f"{answer}: the hardest tenth of each class runs {number_interval(amount)} {word} blocks than the easiest "
        f"{figures}."
    )


def _draw(by_count: dict[int, tuple[int, Estimate]]) -> Figure:
    """Accuracy above, where enough images tell it, and how many images there are below."""
    figure, unused = blank(4.4)
    unused.remove()
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for axes in (above, below):
        remove_frame(axes)
        axes.grid(axis="y", linewidth=0.5)
        axes.tick_params(length=0, labelsize=9)
        axes.set_axisbelow(True)
    told = {count: accuracy for count, (images, accuracy) in by_count.items() if images >= FEWEST_IMAGES}
    above.errorbar(
        list(told),
        [accuracy.value for accuracy in told.values()],
        yerr=reaches(list(told.values())) if told else None,
        color=VERMILION,
        marker="o",
        markersize=5,
        capsize=3,
    )
    as_percent(above, "y")
    name_axes(above, "", f"accuracy ({FEWEST_IMAGES} images or more)")
    below.bar(list(by_count), [images for images, _ in by_count.values()], 0.9, color=BLUE)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(below, "blocks executed", "images")
    below.yaxis.label.set_color(GREY)
    return figure


def _table(by_count: dict[int, tuple[int, Estimate]]) -> Table:
    rows = tuple(
        (str(count), f"{images:,}", percent_interval(accuracy)) for count, (images, accuracy) in by_count.items()
    )
    return Table(("blocks", "images", "accuracy (95% interval)"), rows, "Accuracy by number of blocks executed")
